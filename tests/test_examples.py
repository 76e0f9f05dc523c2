"""The examples beside the trained agents run: they train for a moment, compare and play."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from recgym.agents.pretrained import agent_ids

ROOT = Path(__file__).parent.parent
LENGTHS = {
    "RecBandit-v0": 12_800,
    "RecBanditDrift-v0": 12_800,
    "RecBanditContextual-v0": 12_800,
    "RecSlate-v0": 12_800,
    "RecSlateShop-v0": 12_800,
    "RecSlateSocial-v0": 12_800,
    "AdPlacement-v0": 7_680,
    "AdBidding-v0": 6_144,
    "DynamicPricing-v0": 7_680,
}


@pytest.mark.parametrize("env_id", agent_ids())
def test_the_example_trains_compares_and_plays(env_id: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("example", ROOT / "agents" / env_id / "example.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(LENGTHS[env_id], 60)
    printed = capsys.readouterr().out
    scores = {name: float(mean) for name, mean in re.findall(r"^(\S.*?) +(-?[\d.]+) \(", printed, flags=re.M)}
    assert scores["informed"] > scores["shipped"] > scores["random"]
    assert "trained for a moment" in scores and printed.splitlines()[-1].startswith(("one ", "feature 0 "))
