"""The command that trains: whole small runs and what they leave, logs, environments of one's own, what is refused."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from recgym.evaluation.offpolicy import ESTIMATORS
from tests.runs_for_tests import DEFAULT, PPO, SMALL, TINY, checkpoint_in, events_in, weights


def hyperparameters_in(events: Any) -> Any:
    """What the HPARAMS tab reads."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.parametrize("algo", ["meta_ppo", "ppo", "a2c", "dqn"])
def test_a_whole_run_and_its_evaluation(algo: str, command: Any, tmp_path: Path) -> None:
    small = {
        "meta_ppo": {**PPO, "pretrain_steps": 240},
        "ppo": PPO,
        "a2c": {},
        "dqn": {"learning_starts": 50, "buffer_size": 500},
    }[algo]
    values = [f"--hyperparam={name}={value}" for name, value in small.items()]
    printed = command("train", "--algo", algo, "-n", "800", *SMALL, *values, "--tensorboard-log", str(tmp_path))
    folder = tmp_path / algo / "RecBandit-v0_1"
    files = {"args.json", "checkpoint.safetensors", "report.json", "regret.png", "actions.png"}
    assert files < {path.name for path in folder.iterdir()}
    assert "training" in printed and "on cpu" in printed
    for line in ("evaluate:", "inspect:", "resume:"):
        assert line in printed
    arguments = json.loads((folder / "args.json").read_text())
    assert arguments["environment"]["parameters"]["arms"] == 3
    assert arguments["threads"] >= 1 and "torch" in arguments["versions"] and "commit" in arguments
    events = events_in(folder)
    tags = events.Tags()
    wanted = ["rollout/ctr", "rollout/ep_rew_mean", "eval/ctr", "eval/regret", "eval/normalised_score", "time/fps"]
    assert set(wanted) <= set(tags["scalars"])
    own = {"eval/certainty", "eval/attention"} if algo == "meta_ppo" else set()
    assert set(tags["images"]) == {"eval/regret_curves", "eval/actions"} | own
    if algo == "meta_ppo":
        logged = ["imitation/loss", "imitation/agreement", "train/approx_kl", "train/explained_variance"]
        assert {*logged, "train/grad_norm", "time/rollout_seconds", "time/update_seconds"} <= set(tags["scalars"])
    assert hyperparameters_in(events)["env"].string_value == "RecBandit-v0"
    ctr, reward = (events.Scalars(tag)[-1].value for tag in ("rollout/ctr", "rollout/ep_rew_mean"))
    assert ctr == pytest.approx(reward / 10)

    file = folder / "checkpoint.safetensors"
    again = tmp_path / "again.json"
    given = ["--param", "arms=3", "--param", "horizon=10", "--policies", f"ucb1,agent={file},agent:argmax={file}"]
    command("evaluate", *given, "--trials", "200", "--json", str(again))
    report = json.loads(again.read_text())
    trained = json.loads((folder / "report.json").read_text())
    others = {"versus": 0, "gap_closed": 0}  # what depends on the other policies
    assert report["policies"]["agent"] | others == trained["policies"][algo] | others
    assert set(report) >= {"env", "parameters", "trials", "seed", "policies"}
    assert set(report["policies"]) == {"ucb1", "agent", "agent:argmax", "random", "informed"}
    for figures in report["policies"].values():
        assert set(figures) >= {"return", "regret", "normalised", "objectives", "costs"}
        assert set(figures["return"]) == {"mean", "low", "high"} and set(figures["objectives"]) == {"clicks"}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:imitation of")
def test_options_that_contradict_a_resumed_run_are_refused(command: Any, tmp_path: Path) -> None:
    command("train", "-n", "80", *TINY, "--tensorboard-log", str(tmp_path))
    file = str(checkpoint_in(tmp_path))
    for wrong in (
        ["--env", "RecBanditDrift-v0"],
        ["--algo", "dqn"],
        ["--param", "arms=4"],
        ["--n-envs", "3"],
        ["-n", "8"],
    ):
        assert command("train", "-i", file, *wrong, code=2).startswith("error: "), wrong
    assert "holds weights only" in command("train", "-i", "agents/RecBandit-v0/agent.safetensors", code=2)


@pytest.mark.usefixtures("no_pictures")
def test_log_of_a_real_policy_trains_and_reports(command: Any, tmp_path: Path) -> None:
    rows = ["timestamp,item_id,position,click,propensity_score"]
    rows += [f"2019-11-24 00:{i // 60:02d}:{i % 60:02d},{i % 4},1,{int(i % 7 == 0)},0.25" for i in range(400)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(rows) + "\n")
    small = [*TINY[2:], "--tensorboard-log", str(tmp_path)]
    refused = command("train", "--log", str(log), "--param", "arms=9", *small, code=2)
    assert "does not fit the 4 items" in refused and not (tmp_path / DEFAULT).exists()
    printed = command("train", "--log", str(log), "-n", "400", *small)
    assert "off-policy, 400 events, 4 items" in printed and "no: too few clicks to" in printed
    report = json.loads((tmp_path / DEFAULT / "RecBandit-v0_1" / "report.json").read_text())
    assert report["parameters"]["arms"] == 4
    assert set(report["off_policy"]["policies"][DEFAULT]) == {"replay", *ESTIMATORS}


@pytest.mark.usefixtures("no_pictures")
def test_log_of_sales_trains_and_reports(command: Any, tmp_path: Path) -> None:
    """Demand as fitted, on the terminal and in the report; resumed, with the log's columns."""
    prices = (1.0, 1.25, 1.5, 2.0)
    rows = ["units,price,brand,feat"]
    rows += [f"{90 * p**-2.5 * 1.5**f * (1 + i % 3)},{p},{b},{f}"
             for i in range(12) for p in prices for b in "xy" for f in (0, 1)]  # fmt: skip
    log = tmp_path / "sales.csv"
    log.write_text("\n".join(rows) + "\n")
    small = ["--algo", "ppo", "--env", "DynamicPricing-v0", "--n-envs", "8", "--param", "horizon=4"]
    small += ["--hyperparam", "n_steps=4", "--hyperparam", "batch_size=16", "--eval-trials", "20", "--trials", "60"]
    small += ["--eval-freq", "0", "--tensorboard-log", str(tmp_path), "--log", str(log)]
    assert "no column 'sales'" in command("train", *small, code=2)
    printed = command("train", *small, "--log-column", "sales=units", "-n", "64")
    for expected in (
        "-2.50 ± ",
        "without elasticity",
        "fitted: prices",
        "assumed: ",
        "given: horizon",
        "percent of the informed",
    ):
        assert expected in printed, printed
    folder = tmp_path / "ppo" / "DynamicPricing-v0_1"
    report = json.loads((folder / "report.json").read_text())
    assert [fit["product"] for fit in report["transactions"]["products"]] == ["x", "y"]
    assert report["parameters"]["families"] == ["constant"] and report["parameters"]["horizon"] == 4
    assert 0 < report["share_of_informed"]["ppo"]["mean"] < report["share_of_informed"]["informed"]["mean"] == 1
    resumed = command("train", "-i", str(folder / "checkpoint.safetensors"), "-n", "96")
    assert "percent of the informed" in resumed


# --- environments that are not registered ----------------------------------------------------------------------------
SCENARIO = """
from dataclasses import dataclass
from recgym.scenarios.bandit import Bandit

@dataclass(frozen=True)
class Kiosk(Bandit):
    pass
"""


@pytest.fixture
def kiosk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A scenario in a module that lies in a folder which can be imported from."""
    (tmp_path / "kiosk_module.py").write_text(SCENARIO)
    monkeypatch.syspath_prepend(tmp_path)
    return "kiosk_module:Kiosk"


@pytest.mark.usefixtures("no_pictures")
def test_scenario_of_ones_own_trains_and_goes_on(kiosk: str, command: Any, tmp_path: Path) -> None:
    """A safe name of the folder; a file never chooses what is imported, so that going on names the class again."""
    alone = [*TINY, "--pretrain-steps", "0"]  # nothing is tuned for it, an expert to imitate neither
    printed = command("train", "--env", kiosk, "-n", "80", *alone, "--tensorboard-log", str(tmp_path))
    file = checkpoint_in(tmp_path, "kiosk_module.Kiosk")
    assert json.loads((file.parent / "report.json").read_text())["env"] == kiosk
    (line,) = (line for line in printed.splitlines() if line.startswith("resume:"))
    assert ["-i", str(tmp_path / "latest"), "--env", kiosk, "-n", "160"] == shlex.split(line)[-6:]
    error = command("train", "-i", str(file), "-n", "160", code=2)
    assert "not registered" in error and "--env MODULE:CLASS" in error and kiosk in error
    assert "was trained with --env kiosk_module:Kiosk" in command("train", "-i", str(file), "--env", "x:Y", code=2)
    command("train", "-i", str(file), "--env", kiosk, "-n", "160")
    assert weights(file)[0] == 160
    report = json.loads((file.parent / "report.json").read_text())
    assert report["parameters"] == {"arms": 3, "horizon": 10}


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.filterwarnings("ignore:imitation of")
def test_gymnasiums_module_prefix_changes_nothing(command: Any, tmp_path: Path) -> None:
    command("train", "--env", "recgym:RecBandit-v0", "-n", "80", *TINY, "--tensorboard-log", str(tmp_path))
    assert weights(checkpoint_in(tmp_path))[0] == 80


# --- what is refused -------------------------------------------------------------------------------------------------
REFUSED = {
    "unknown environment": (["--env", "RecBandid-v0"], "did you mean 'RecBandit-v0'"),
    "unknown parameter": (["--param", "armz=3"], "did you mean 'arms'"),
    "bad parameter": (["--param", "horizon=-5"], "horizon must be a whole number"),
    "parameter of another preset": (["--param", "drift=0.1"], "got an unexpected keyword argument 'drift'"),
    "unknown hyperparameter": (["--hyperparam", "n_stepz=3"], "n_stepz"),
    "part of a trial": (["--hyperparam", "n_steps=30"], "does not hold whole trials of 100"),
    "part of an epoch": (["--hyperparam", "n_epochs=1.5"], "n_epochs must be a whole number"),
    "number that is text": (["--hyperparam", "target_kl=abc"], "target_kl must be a number above 0"),
    "no reward left": (["--hyperparam", "reward_scale=0"], "reward_scale must be a number above 0"),
    "no JSON": (["--param", "arms=[.2]"], "arms: [.2] is not JSON"),
    "Python's None": (["--param", "arms=None"], "arms must be a whole number in [1, 10000], got None"),
    "no mapping": (["--hyperparam", "policy_kwargs=foo"], "policy_kwargs must be a mapping"),
    "varied twice": (["--vary", "arms=[5]", "--vary", "arms=[6]"], "--vary names arms twice"),
    "unknown expert": (["--pretrain-expert", "gitins"], "did you mean 'gittins'"),
    "expert of another algorithm": (["--algo", "ppo", "--pretrain-expert", "gittins"], "option of meta_ppo"),
    "nothing to vary": (["--vary", "arms=5"], "must be a list of values"),
    "unknown variant": (["--vary", "armz=[5]"], "armz"),
    "no tasks": (["--tasks", "0"], "--tasks must be at least 1"),
    "no expert's field": (["--init-policy", "expert"], "--param expert=NOISE"),
    "missing log": (["--log", "nowhere.csv"], "nowhere.csv"),
    "log of another kind": (["--env", "RecBanditContextual-v0", "--log", "x"], "takes nothing from a log"),
    "log of a reference": (["--env", "DynamicPricingFerreira-v0", "--log", "x"], "takes nothing from a log"),
    "log of no environment": (["--env", "RecBandid-v0", "--log", "x"], "did you mean 'RecBandit-v0'"),
    "missing sales": (["--env", "DynamicPricing-v0", "--log", "nowhere.csv"], "nowhere.csv does not exist"),
    "column without a log": (["--log-column", "sales=units"], "add --log PATH"),
    "column of another log": (
        ["--log", "x", "--log-column", "sales=units"],
        "its columns are timestamp, item, position, click, propensity",
    ),
    "unknown column": (
        ["--env", "DynamicPricing-v0", "--log", "x", "--log-column", "sold=units"],
        "its columns are sales, price, product, promotion",
    ),
    "missing checkpoint": (["-i", "nowhere.safetensors"], "no such checkpoint"),
    "no checkpoint": (["-i", "README.md"], "not a checkpoint"),
    "no GPU": (["--device", "cuda"], "finds no GPU"),
    "unwritable logs": (["--tensorboard-log", "/proc/nowhere"], "/proc/nowhere"),
    "seed of the test tasks": (["--seed", "2000000"], "--seed must be in"),
    "negative timesteps": (["-n", "-1"], "--n-timesteps must be at least 1"),
    "unknown device": (["--device", "gpu"], "use auto, cpu, cuda"),
    "parameter of the interface": (["--param", "n_envs=3"], "got an unexpected keyword argument 'n_envs'"),
    "render mode": (["--param", "render_mode=ansi"], "got an unexpected keyword argument 'render_mode'"),
    "no epochs": (["--hyperparam", "n_epochs=0"], "n_epochs must be a number of at least 1"),
    "learning rate": (["--hyperparam", "learning_rate=NaN"], "learning_rate must be a number"),
    "text for a number": (["--hyperparam", "gamma=foo"], "gamma must be a number"),
    "batch of one": (["--algo", "ppo", "--hyperparam", "n_steps=1", "--n-envs", "1"], "hyperparameters of ppo"),
    "negative frequency": (["--save-freq", "-1"], "--save-freq must be at least 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_error_and_leaves_nothing(case: str, command: Any, tmp_path: Path) -> None:
    if case == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    arguments, message = REFUSED[case]
    if "--tensorboard-log" not in arguments:
        arguments = [*arguments, "--tensorboard-log", str(tmp_path / "logs")]
    assert message in command("train", *arguments, code=2)
    assert not list(tmp_path.iterdir()), "a run folder was left behind"


def test_lists_and_help(command: Any) -> None:
    assert "RecBanditDrift-v0" in command("train", "--list-envs")
    printed = command("train", "--help")
    assert "examples:" in printed and "recgym list ID" in " ".join(printed.split())
    for default in ("RecBandit-v0", "meta_ppo", "4000"):
        assert f"(default: {default})" in printed
