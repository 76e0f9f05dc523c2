"""Runs that begin with the weights of a trained agent, and runs whose log lies elsewhere or nowhere."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recgym.agents import load
from recgym.agents.checkpoint import read
from recgym.agents.pretrained import agent_file
from tests.runs_for_tests import checkpoint_in

pytestmark = [pytest.mark.usefixtures("no_pictures"), pytest.mark.filterwarnings("ignore:imitation of")]
SHORT = ["-n", "640", "--n-envs", "4", "--trials", "30", "--eval-trials", "10", "--eval-freq", "0"]


def test_a_run_begins_where_a_shipped_agent_is(command: Any, tmp_path: Path) -> None:
    """With its network and weights, on other click rates and another number of items; everything else is new."""
    place = ["--param", "horizon=10", *SHORT, "--tensorboard-log", str(tmp_path)]
    words = ["--from", "pretrained:RecBandit-v0", "--param", "prior=[1,3]", "--param", "arms=4"]
    printed = command("train", *words, *place, "--hyperparam", "learning_rate=1e-12")
    assert "imitating" not in printed
    file = checkpoint_in(tmp_path)
    header, tensors = read(file)
    for name, value in read(agent_file("RecBandit-v0"))[1].items():
        if name.startswith("policy."):
            assert torch.allclose(tensors[name], value, atol=1e-5), name
    assert header["env"]["parameters"] == {"arms": 4, "prior": [1.0, 3.0], "horizon": 10}
    assert header["num_timesteps"] == 640 and header["own"]["pretrained"] == 0
    assert json.loads((file.parent / "args.json").read_text())["options"]["start_from"] == "pretrained:RecBandit-v0"
    command("train", "--from", str(file.parent), "--param", "arms=3", *place)


def test_what_cannot_begin_a_run_is_refused(command: Any, tmp_path: Path) -> None:
    begin = ["train", "--from", "pretrained:RecBandit-v0", *SHORT, "--tensorboard-log", str(tmp_path)]
    for words, message in (
        (["--env", "RecBanditContextual-v0"], "trained on other observations or actions than here: average (1 there"),
        (["--algo", "ppo"], "holds a meta_ppo, not a ppo: add --algo meta_ppo"),
        (["--hyperparam", 'policy_kwargs={"width": 8}'], "leave policy_kwargs out"),
        (["-i", str(agent_file("RecBandit-v0"))], "choose"),
    ):
        assert message in command(*begin, *words, code=2)
    assert "no trained agent ships as 'RecBandid-v0'" in command("train", "--from", "pretrained:RecBandid-v0", code=2)
    assert not list(tmp_path.iterdir())


def clicks(path: Path, *, clicked: bool = True) -> Path:
    """A small log in the Open Bandit layout, three items shown uniformly."""
    rng = np.random.default_rng(0)
    lines = ["timestamp,item_id,position,click,propensity_score"]
    for second in range(300):
        item = int(rng.integers(3))
        click = int(clicked and rng.random() < 0.1 * (item + 1))
        lines.append(f"2019-11-24 00:{second // 60:02}:{second % 60:02},{item},1,{click},{1 / 3}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(("\n".join(lines) + "\n").encode()))
    return path


def test_a_run_on_a_log_goes_on_where_the_log_lies_elsewhere_or_nowhere(command: Any, tmp_path: Path) -> None:
    log = clicks(tmp_path / "one" / "log.csv.gz")
    words = ["--param", "horizon=10", "--algo", "ppo", "--n-envs", "8", "--trials", "30", "--eval-trials", "10"]
    words += [
        "--hyperparam",
        "n_steps=10",
        "--hyperparam",
        "batch_size=40",
        "--tensorboard-log",
        str(tmp_path / "runs"),
    ]
    assert "off-policy" in command("train", "--log", str(log), "-n", "80", *words)
    file = checkpoint_in(tmp_path / "runs", algo="ppo")
    header = read(file)[0]
    assert header["env"]["parameters"]["prior"][0] > 0 and header["counters"]["options"]["log_digest"]
    elsewhere = tmp_path / "other" / "kept.csv.gz"
    elsewhere.parent.mkdir()
    os.rename(log, elsewhere)
    printed = command("train", "-i", str(file), "-n", "160")
    assert "goes on without a report on it; --log PATH says where it is" in printed and "off-policy" not in printed
    assert "off-policy" in command("train", "-i", str(file), "-n", "240", "--log", str(elsewhere))
    other = clicks(tmp_path / "another.csv.gz", clicked=False)
    assert "is another log than" in command("train", "-i", str(file), "-n", "320", "--log", str(other), code=2)
    assert load(file).env.unwrapped.scenario.arms == 3  # nobody asks for the log
    command("evaluate", "--policies", f"mine={file}", "--trials", "20")


def test_what_is_given_is_not_fitted(command: Any, tmp_path: Path) -> None:
    """A log without clicks says nothing of their rates; who gives a prior need not be told so."""
    log = clicks(tmp_path / "log.csv.gz", clicked=False)
    words = ["train", "--log", str(log), "--param", "horizon=10", *SHORT, "--pretrain-steps", "0"]
    words += ["--tensorboard-log", str(tmp_path / "runs")]
    assert "clicks in 300 impressions fit no prior: give one" in command(*words, code=2)
    printed = command(*words, "--param", "prior=[1,30]", "--hyperparam", "batch_size=20")
    assert "click rates Beta(1, 30), as given" in printed
    assert "does not fit the 3 items" in command(*words, "--param", "prior=[1,30]", "--param", "arms=5", code=2)
