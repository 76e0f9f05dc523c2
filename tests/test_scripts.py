"""The command lines: a whole small run, interrupting, killing, resuming, and what is refused."""

from __future__ import annotations

import importlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch

from recgym.agents.checkpoint import read
from recgym.sb3 import EvaluationCallback, RecVecEnv

ROOT = Path(__file__).parent.parent
TINY = ["--param", "arms=3", "--param", "horizon=10", "--n-envs", "8", "--eval-trials", "50", "--trials", "200"]
TINY += ["--eval-freq", "0"]  # first and last: pictures take most of the time
PPO = {"n_steps": 10, "batch_size": 40}
for _name, _value in {**PPO, "policy_kwargs": '{"width": 8, "layers": 1}'}.items():
    TINY += ["--hyperparam", f"{_name}={_value}"]
TINY += ["--pretrain-steps", "240"]  # of the default algorithm, which then goes on with PPO
DEFAULT = "meta_ppo"


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.fixture(autouse=True)
def as_from_the_command_line(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    yield
    torch.set_num_threads(threads)


def run(script: str, *arguments: str, code: int = 0) -> str:
    """What a script prints, run in this process: that spares the imports. An error is all on the error stream."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            returned = importlib.import_module(script.removesuffix(".py")).main(list(arguments))
        except SystemExit as exit:  # of argparse
            returned = exit.code
    printed = out.getvalue() + err.getvalue()
    assert (returned or 0) == code, printed
    return err.getvalue() if code else printed


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until training has written `path`."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


def loaded(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def value(folder: Path, tag: str) -> float:
    """The last value under a tag."""
    return loaded(folder).Scalars(tag)[-1].value


def hyperparameters_shown(folder: Path) -> Any:
    """What the HPARAMS tab reads."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = loaded(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    return HParamsPluginData.FromString(content).session_start_info.hparams


@pytest.mark.parametrize("algo", ["meta_ppo", "ppo", "a2c", "dqn"])
def test_a_whole_run_and_its_evaluation(algo: str, tmp_path: Path) -> None:
    small = {
        "meta_ppo": {**PPO, "pretrain_steps": 240},
        "ppo": PPO,
        "a2c": {},
        "dqn": {"learning_starts": 50, "buffer_size": 500},
    }[algo]
    chosen = [*TINY[: TINY.index("--hyperparam")], *(f"--hyperparam={k}={v}" for k, v in small.items())]
    printed = run("train.py", "--algo", algo, "-n", "800", *chosen, "--tensorboard-log", str(tmp_path))
    folder = tmp_path / algo / "RecBandit-v0_1"
    left = {"args.json", "checkpoint.safetensors", "report.json", "regret.png", "actions.png"}
    assert left < {path.name for path in folder.iterdir()}
    assert "training" in printed and "on cpu" in printed
    for line in ("evaluate:", "inspect:", "resume:"):
        assert line in printed
    arguments = json.loads((folder / "args.json").read_text())
    assert arguments["environment"]["parameters"]["arms"] == 3
    assert arguments["threads"] >= 1 and "torch" in arguments["versions"] and "commit" in arguments
    seen = loaded(folder).Tags()
    wanted = ["rollout/ctr", "rollout/ep_rew_mean", "eval/ctr", "eval/regret", "eval/normalised_score", "time/fps"]
    assert set(wanted) <= set(seen["scalars"])
    own = {"eval/certainty", "eval/attention"} if algo == "meta_ppo" else set()
    assert set(seen["images"]) == {"eval/regret_curves", "eval/actions"} | own
    if algo == "meta_ppo":
        logged = ["imitation/loss", "imitation/agreement", "train/approx_kl", "train/explained_variance"]
        assert {*logged, "train/grad_norm", "time/rollout_seconds", "time/update_seconds"} <= set(seen["scalars"])
    assert hyperparameters_shown(folder)["env"].string_value == "RecBandit-v0"
    assert value(folder, "rollout/ctr") == pytest.approx(value(folder, "rollout/ep_rew_mean") / 10)

    file, again = folder / "checkpoint.safetensors", tmp_path / "again.json"
    given = ["--param", "arms=3", "--param", "horizon=10", "--policies", f"ucb1,agent={file},agent:argmax={file}"]
    run("evaluate.py", *given, "--trials", "200", "--json", str(again))
    report = json.loads(again.read_text())
    trained = json.loads((folder / "report.json").read_text())
    others = {"versus": 0, "gap_closed": 0}  # what depends on the other policies
    assert report["policies"]["agent"] | others == trained["policies"][algo] | others
    assert set(report) >= {"env", "parameters", "trials", "seed", "policies"}
    assert set(report["policies"]) == {"ucb1", "agent", "agent:argmax", "random", "informed"}
    for figures in report["policies"].values():
        assert set(figures) >= {"return", "regret", "normalised", "objectives", "costs"}
        assert set(figures["return"]) == {"mean", "low", "high"} and set(figures["objectives"]) == {"clicks"}


def weights(path: Path) -> tuple[int, dict[str, Any]]:
    header, tensors = read(path)
    return header["num_timesteps"], tensors


def same(left: Path, right: Path) -> None:
    (steps, ours), (other_steps, theirs) = weights(left), weights(right)
    assert steps == other_steps and set(ours) == set(theirs)
    assert not [name for name in ours if not torch.equal(ours[name], theirs[name])]


def test_killed_and_interrupted_runs_resume_bit_identical(tmp_path: Path) -> None:
    common = ["-n", "2000", "--save-freq", "400", "--num-threads", "1", *TINY, "--tensorboard-log"]
    run("train.py", *common, str(tmp_path / "whole"))
    ends = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT}
    for name, sent in ends.items():
        process = start("train.py", *common, str(tmp_path / name))
        file = tmp_path / name / DEFAULT / "RecBandit-v0_1" / "checkpoint.safetensors"
        wait_for(file, process)
        process.send_signal(sent)
        out, err = process.communicate(timeout=120)
        if sent == signal.SIGINT:
            assert process.returncode == 130 and "resume:" in out and str(file) in out, out + err
        assert 0 < weights(file)[0] < 2000
        process = start("train.py", "-i", str(file), "--trials", "200", "--eval-trials", "50")
        assert process.communicate(timeout=300) and process.returncode == 0
        same(tmp_path / "whole" / DEFAULT / "RecBandit-v0_1" / "checkpoint.safetensors", file)


@pytest.mark.parametrize("moment", ["first step", "last rollout", "last evaluation"])
def test_interrupted_at_odd_moments_saves_what_it_says(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step, evaluate = RecVecEnv.step_wait, EvaluationCallback.evaluate
    seen = {"steps": 0}

    def interrupting_step(env: RecVecEnv) -> Any:
        seen["steps"] += 1
        if seen["steps"] == {"first step": 1, "last rollout": 45}.get(moment):  # 5 rollouts of 10 steps of 8 rows
            os.kill(os.getpid(), signal.SIGINT)
        return step(env)

    def interrupting_evaluation(callback: EvaluationCallback) -> Any:
        if moment == "last evaluation" and callback.num_timesteps == 400:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(callback)

    monkeypatch.setattr(RecVecEnv, "step_wait", interrupting_step)
    monkeypatch.setattr(EvaluationCallback, "evaluate", interrupting_evaluation)
    main = importlib.import_module("train").main
    options = ["-n", "400", "--save-freq", "0", *TINY, "--tensorboard-log", str(tmp_path)]
    assert main(options) == 130
    file = tmp_path / DEFAULT / "RecBandit-v0_1" / "checkpoint.safetensors"
    steps = 80 if moment == "first step" else 400
    assert weights(file)[0] == steps
    assert f"saved after {steps} timesteps in {file}" in capsys.readouterr().out
    assert main(["-i", str(file)]) == 0
    assert weights(file)[0] == 400
    assert len(json.loads((file.parent / "args.json").read_text())["resumed"]) == 1


def test_options_that_contradict_a_resumed_run_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module("train").main
    assert main(["-n", "80", *TINY, "--tensorboard-log", str(tmp_path)]) == 0
    file = str(tmp_path / DEFAULT / "RecBandit-v0_1" / "checkpoint.safetensors")
    for wrong in (
        ["--env", "RecBanditDrift-v0"],
        ["--algo", "dqn"],
        ["--param", "arms=4"],
        ["--n-envs", "3"],
        ["-n", "8"],
    ):
        capsys.readouterr()
        assert main(["-i", file, *wrong]) == 2, wrong
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["-i", "agents/RecBandit-v0/agent.safetensors"]) == 2
    assert "holds weights only" in capsys.readouterr().err


def test_log_of_a_real_policy_trains_and_reports(tmp_path: Path) -> None:
    rows = ["timestamp,item_id,position,click,propensity_score"]
    rows += [f"2019-11-24 00:{i // 60:02d}:{i % 60:02d},{i % 4},1,{int(i % 7 == 0)},0.25" for i in range(400)]
    log = tmp_path / "log.csv"
    log.write_text("\n".join(rows) + "\n")
    small = [*TINY[2:], "--tensorboard-log", str(tmp_path)]
    refused = run("train.py", "--log", str(log), "--param", "arms=9", *small, code=2)
    assert "does not fit the 4 items" in refused and not (tmp_path / DEFAULT).exists()
    printed = run("train.py", "--log", str(log), "-n", "400", *small)
    assert "off-policy, 400 events, 4 items" in printed and "replay: too few clicks to compare" in printed
    report = json.loads((tmp_path / DEFAULT / "RecBandit-v0_1" / "report.json").read_text())
    assert report["parameters"]["arms"] == 4
    assert set(report["off_policy"]["policies"][DEFAULT]) == {"replay", "ips", "snips"}


def test_log_of_sales_trains_and_reports(tmp_path: Path) -> None:
    """Demand as fitted, on the terminal and in the report; resumed, with the log's columns."""
    prices = (1.0, 1.25, 1.5, 2.0)
    rows = ["units,price,brand,feat"]
    rows += [f"{90 * p**-2.5 * 1.5**f * (1 + i % 3)},{p},{b},{f}"
             for i in range(12) for p in prices for b in "xy" for f in (0, 1)]  # fmt: skip
    log = tmp_path / "sales.csv"
    log.write_text("\n".join(rows) + "\n")
    small = ["--algo", "ppo", "--env", "DynamicPricing-v0", "--n-envs", "8", "--param", "horizon=10"]
    small += ["--hyperparam", "n_steps=10", "--hyperparam", "batch_size=40", "--eval-trials", "50", "--trials", "200"]
    small += ["--eval-freq", "0", "--tensorboard-log", str(tmp_path), "--log", str(log)]
    assert "no column 'sales'" in run("train.py", *small, code=2)
    printed = run("train.py", *small, "--log-column", "sales=units", "-n", "400")
    for expected in ("-2.50 ± ", "without elasticity", "│ fitted", "│ assumed", "│ given", "percent of the informed"):
        assert expected in printed, printed
    folder = tmp_path / "ppo" / "DynamicPricing-v0_1"
    report = json.loads((folder / "report.json").read_text())
    assert [fit["product"] for fit in report["transactions"]["products"]] == ["x", "y"]
    assert report["parameters"]["families"] == ["constant"] and report["parameters"]["horizon"] == 10
    assert 0 < report["share_of_informed"]["ppo"]["mean"] < report["share_of_informed"]["informed"]["mean"] == 1
    resumed = run("train.py", "-i", str(folder / "checkpoint.safetensors"), "-n", "480")
    assert "percent of the informed" in resumed


SHIPPED = "agents/RecBandit-v0/agent.safetensors"
REFUSED = {
    "unknown environment": (["train.py", "--env", "RecBandid-v0"], "did you mean 'RecBandit-v0'"),
    "unknown parameter": (["train.py", "--param", "armz=3"], "did you mean 'arms'"),
    "bad parameter": (["train.py", "--param", "horizon=-5"], "horizon must be a whole number"),
    "parameter of another preset": (["train.py", "--param", "drift=0.1"], "has no parameter 'drift'"),
    "unknown hyperparameter": (["train.py", "--hyperparam", "n_stepz=3"], "n_stepz"),
    "part of a trial": (["train.py", "--hyperparam", "n_steps=30"], "does not hold whole trials of 100"),
    "part of an epoch": (["train.py", "--hyperparam", "n_epochs=1.5"], "n_epochs must be a whole number"),
    "number that is text": (["train.py", "--hyperparam", "target_kl=abc"], "target_kl must be a number above 0"),
    "no reward left": (["train.py", "--hyperparam", "reward_scale=0"], "reward_scale must be a number above 0"),
    "no JSON": (["train.py", "--param", "arms=[.2]"], "arms: [.2] is not JSON"),
    "Python's None": (["train.py", "--param", "arms=None"], "arms must be a whole number in [1, 10000], got None"),
    "no mapping": (["train.py", "--hyperparam", "policy_kwargs=foo"], "policy_kwargs must be a mapping"),
    "varied twice": (["train.py", "--vary", "arms=[5]", "--vary", "arms=[6]"], "--vary names arms twice"),
    "unknown expert": (["train.py", "--pretrain-expert", "gitins"], "did you mean 'gittins'"),
    "expert of another algorithm": (
        ["train.py", "--algo", "ppo", "--pretrain-expert", "gittins"],
        "option of meta_ppo",
    ),
    "nothing to vary": (["train.py", "--vary", "arms=5"], "must be a list of values"),
    "unknown variant": (["train.py", "--vary", "armz=[5]"], "armz"),
    "no tasks": (["train.py", "--tasks", "0"], "--tasks must be at least 1"),
    "no expert's field": (["train.py", "--init-policy", "expert"], "--param expert=NOISE"),
    "missing log": (["train.py", "--log", "nowhere.csv"], "nowhere.csv"),
    "log of another kind": (["train.py", "--env", "RecBanditContextual-v0", "--log", "x"], "takes nothing from a log"),
    "log of a reference": (
        ["train.py", "--env", "DynamicPricingFerreira-v0", "--log", "x"],
        "takes nothing from a log",
    ),
    "log of no environment": (["train.py", "--env", "RecBandid-v0", "--log", "x"], "did you mean 'RecBandit-v0'"),
    "missing sales": (["train.py", "--env", "DynamicPricing-v0", "--log", "nowhere.csv"], "nowhere.csv does not exist"),
    "column without a log": (["train.py", "--log-column", "sales=units"], "add --log PATH"),
    "column of another log": (
        ["train.py", "--log", "x", "--log-column", "sales=units"],
        "names of its columns are fixed",
    ),
    "unknown column": (
        ["train.py", "--env", "DynamicPricing-v0", "--log", "x", "--log-column", "sold=units"],
        "its columns are sales, price, product, promotion",
    ),
    "missing checkpoint": (["train.py", "-i", "nowhere.safetensors"], "no such checkpoint"),
    "no checkpoint": (["train.py", "-i", "README.md"], "not a checkpoint"),
    "no GPU": (["train.py", "--device", "cuda"], "finds no GPU"),
    "unwritable logs": (["train.py", "--tensorboard-log", "/proc/nowhere"], "/proc/nowhere"),
    "seed of the test tasks": (["train.py", "--seed", "2000000"], "--seed must be in"),
    "negative timesteps": (["train.py", "-n", "-1"], "--n-timesteps must be at least 1"),
    "unknown policy": (["evaluate.py", "--policies", "tompson"], "did you mean 'thompson'"),
    "no policies": (["evaluate.py"], "--policies names none"),
    "same label": (["evaluate.py", "--policies", "a=x,a=y"], "two policies are called 'a'"),
    "evaluate a file that is none": (["evaluate.py", "--policies", "a=README.md"], "not a checkpoint"),
    "unknown device": (["train.py", "--device", "gpu"], "use auto, cpu, cuda"),
    "device of an evaluation": (["evaluate.py", "--device", "gpu", "--policies", SHIPPED], "use auto, cpu, cuda"),
    "parameter of the interface": (["train.py", "--param", "n_envs=3"], "has no parameter 'n_envs'"),
    "render mode": (["train.py", "--param", "render_mode=ansi"], "has no parameter 'render_mode'"),
    "no epochs": (["train.py", "--hyperparam", "n_epochs=0"], "n_epochs must be a number of at least 1"),
    "learning rate": (["train.py", "--hyperparam", "learning_rate=NaN"], "learning_rate must be a number"),
    "text for a number": (["train.py", "--hyperparam", "gamma=foo"], "gamma must be a number"),
    "batch of one": (
        ["train.py", "--algo", "ppo", "--hyperparam", "n_steps=1", "--n-envs", "1"],
        "hyperparameters of ppo",
    ),
    "negative frequency": (["train.py", "--save-freq", "-1"], "--save-freq must be at least 0"),
    "name of a baseline": (["evaluate.py", "--policies", f"random={SHIPPED}"], "is the name of a baseline"),
    "folder for a report": (["evaluate.py", "--policies", "ucb1", "--json", "tests"], "it is a folder"),
    "figure of no kind": (["evaluate.py", "--policies", "ucb1", "--figure", "x.abc"], "the ending must be one of"),
    "prior without a table": (
        ["evaluate.py", "--policies", "gittins", "--param", "prior=[0.005,1]"],
        "gittins cannot play this Bandit",
    ),
    "horizon without a table": (["evaluate.py", "--policies", "gittins", "--param", "horizon=4000"], "too large"),
    "few trials": (["evaluate.py", "--policies", "ucb1", "--trials", "1"], "--trials at least 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_gets_one_error_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    if case == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    (script, *arguments), message = REFUSED[case]
    if script == "train.py" and "--tensorboard-log" not in arguments:
        arguments += ["--tensorboard-log", str(tmp_path / "logs")]
    assert message in run(script, *arguments, code=2)
    assert not list(tmp_path.iterdir()), "a run folder was left behind"


def test_lists_and_help() -> None:
    process = start("train.py", "--list-envs")
    assert "RecBanditDrift-v0" in process.communicate(timeout=120)[0] and process.returncode == 0
    listed = run("evaluate.py", "--list-policies")
    assert "thompson" in listed and "prior-aware" in listed
    for script in ("train.py", "evaluate.py"):
        assert "examples:" in run(script, "--help")
