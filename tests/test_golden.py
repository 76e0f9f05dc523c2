"""Golden trials: every environment and every shipped agent still does what it did when `golden` recorded it.

What is discrete must be the same, a float within a millionth of what it was (in units of its array, where these are
large): vector units of processors differ in the last bits. The data come from before the code was last rearranged.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import golden
import numpy as np
import pytest

import recgym

TOLERANCE = 1e-6
LOGIT_TOLERANCE = 2e-5  # after some hundred float32 products; another vector unit moved one by 9e-6
MAX_BYTES = 1_500_000


@cache
def record_of(group: str, name: str) -> Any:
    """The fields [3, ...] of one case, or of one agent."""
    with np.load(golden.file_of(group), allow_pickle=False) as file:
        assert name in file.files, f"nothing recorded of {name}: python tests/golden.py {group}"
        return file[name]


def largest(array: np.ndarray, *, by_column: bool) -> Any:
    """The largest absolute value, of all or of each column, and at least 1; a regret is as exact as its terms."""
    size = np.nan_to_num(np.abs(array))
    return np.maximum(1.0, size.max(axis=tuple(range(size.ndim - 1)) if by_column else None, initial=0.0))


def check_same(here: Mapping[str, np.ndarray], there: Any) -> None:
    """The same names, shapes and numbers."""
    assert list(here) == list(there.dtype.names)
    for name, array in here.items():
        recorded = there[name]
        assert array.shape == recorded.shape, name
        if recorded.dtype.kind == "f":
            scale = largest(there["best_reward" if name == "info.regret" else name], by_column="observ" in name)
            np.testing.assert_allclose(array / scale, recorded / scale, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)
        else:
            assert array.dtype == recorded.dtype, name
            np.testing.assert_array_equal(array, recorded, err_msg=name)


CASES = [(id, case) for id, cases in golden.CASES.items() for case in cases]


@pytest.mark.filterwarnings("ignore:DynamicPricing:UserWarning")  # some cases lose on every sale
@pytest.mark.parametrize("device", golden.DEVICES)
@pytest.mark.parametrize("id, case", CASES, ids=str)
def test_trials_are_as_recorded(id: str, case: str, device: str) -> None:
    """Tasks, bounds, and what every decision led to, in three ways of playing on."""
    if device == "torch":
        pytest.importorskip("torch")
    recorded = record_of(id, f"{case}|{device}")
    check_same(golden.play_case(id, case, device, recorded["seed"].tolist()), recorded)


@pytest.mark.parametrize("name", golden.agent_files())
def test_agents_are_as_recorded(name: str) -> None:
    """Logits, values, and the most probable action where it does not hinge on the last bits."""
    pytest.importorskip("stable_baselines3")
    recorded = record_of(golden.AGENTS, name)
    here = golden.play_agent(golden.agent_files()[name])
    for kind in ("logits", "values"):
        np.testing.assert_allclose(here[kind], recorded[kind], rtol=TOLERANCE, atol=LOGIT_TOLERANCE, err_msg=kind)
    in_order = np.sort(recorded["logits"], axis=-1)
    clear = in_order[..., -1] - in_order[..., -2] > 2 * LOGIT_TOLERANCE
    assert clear.mean() > 0.5
    first, known = (actions.reshape(*clear.shape, -1)[..., 0] for actions in (here["actions"], recorded["actions"]))
    np.testing.assert_array_equal(first[clear], known[clear])
    value = np.take_along_axis(recorded["logits"], first[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(value, in_order[..., -1], rtol=0.0, atol=2 * LOGIT_TOLERANCE)


def test_what_is_recorded_is_what_there_is() -> None:
    """Every registered id and agent, nothing that is gone, and not much of it."""
    assert list(golden.CASES) == list(recgym.SCENARIOS)
    files = {group: golden.file_of(group) for group in (*golden.CASES, golden.AGENTS)}
    assert sorted(golden.FOLDER.iterdir()) == sorted(files.values())
    assert sum(file.stat().st_size for file in files.values()) < MAX_BYTES
    for id, cases in golden.CASES.items():
        with np.load(files[id], allow_pickle=False) as file:
            assert file.files == [f"{case}|{device}" for case in cases for device in golden.DEVICES]
    with np.load(files[golden.AGENTS], allow_pickle=False) as file:
        assert file.files == list(golden.agent_files())
