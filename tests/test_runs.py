"""Runs: killed, interrupted and gone on with; their folders; the values that they are made with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

import recgym
from recgym.agents import MetaPPO, run_folder
from recgym.agents.algorithms import ALGORITHMS, build
from recgym.agents.callbacks import EvaluationCallback
from recgym.agents.checkpoint import read, save
from recgym.agents.folders import make_folder
from recgym.agents.pretrained import agent_file, agent_ids
from recgym.agents.run_folder import commit
from recgym.agents.run_options import RunOptions, arguments_of, log_digest, options_to_keep, resume
from recgym.agents.tuned import TABLES, tuned_values
from recgym.cli import main
from recgym.sb3 import RecVecEnv, make_vec_env
from tests.runs_for_tests import PPO, TINY, assert_same, checkpoint_in, steps_of, weights

ROOT = Path(__file__).parent.parent


# --- stopped and gone on with ----------------------------------------------------------------------------------------
def interrupt_at(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C at a step of the environment, once."""
    step = RecVecEnv.step_wait
    count = [0]

    def interrupting_step(env: RecVecEnv) -> Any:
        count[0] += 1
        if count[0] == number:
            os.kill(os.getpid(), signal.SIGINT)
        return step(env)

    monkeypatch.setattr(RecVecEnv, "step_wait", interrupting_step)


FATAL_STEP = """
import os, signal, sys
from recgym.cli import main
from recgym.sb3 import RecVecEnv

step = RecVecEnv.step_wait
count = [0]

def fatal_step(env):
    count[0] += 1
    if count[0] == 45:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(env)

RecVecEnv.step_wait = fatal_step
main(["train", *sys.argv[1:]])
"""


@pytest.mark.usefixtures("no_pictures")
def test_killed_and_interrupted_runs_resume_bit_identical(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of PPO, in another process than goes on; interrupted in the middle of imitation."""
    common = ["-n", "640", "--save-freq", "160", "--num-threads", "1", *TINY, "--tensorboard-log"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen(
        [sys.executable, "-c", FATAL_STEP, *common, str(tmp_path / "kill")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    command("train", *common, str(tmp_path / "whole"))
    with monkeypatch.context() as patch:
        interrupt_at(15, patch)
        printed = command("train", *common, str(tmp_path / "interrupt"), code=130)
    printed_there = killed.communicate(timeout=120)[0]
    assert killed.returncode == -signal.SIGKILL, printed_there
    stops = {"kill": 320, "interrupt": 160}  # a rollout is ten steps, of eight rows
    for name, steps in stops.items():
        file = checkpoint_in(tmp_path / name)
        assert weights(file)[0] == steps
        if name == "interrupt":
            assert "resume:" in printed and str(file) in printed
        command("train", "-i", str(file), "--trials", "200", "--eval-trials", "50")
        assert_same(checkpoint_in(tmp_path / "whole"), file)
        evaluations = steps_of(file.parent, "eval/return")
        assert evaluations == [0, 640], "what was evaluated is not evaluated again, and nobody waits after a stop"


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_save_as_ctrl_c_does(number: int, command: Any, tmp_path: Path) -> None:
    common = ["-n", "640", "--save-freq", "0", "--num-threads", "1", *TINY, "--tensorboard-log", str(tmp_path)]
    program = FATAL_STEP.replace("SIGKILL", signal.Signals(number).name)
    done = subprocess.run(
        [sys.executable, "-c", program, *common],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "stopping after this update" in done.stderr and "interrupted; saved after 400 timesteps" in done.stdout
    assert weights(checkpoint_in(tmp_path))[0] == 400


@pytest.mark.usefixtures("no_pictures")
def test_a_run_in_another_thread_is_as_one_in_the_main_thread(command: Any, tmp_path: Path) -> None:
    common = ["-n", "160", "--num-threads", "1", *TINY, "--tensorboard-log"]
    places = [tmp_path / name for name in ("one", "other")]
    threads = [threading.Thread(target=main, args=(["train", *common, str(place)],)) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    command("train", *common, str(tmp_path / "main"))
    for place in places:  # they do not take each other's random numbers
        assert_same(checkpoint_in(tmp_path / "main"), checkpoint_in(place))


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("moment", ["first step", "last rollout", "last evaluation"])
def test_interrupted_at_odd_moments_saves_what_it_says(
    moment: str, command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    options = ["-n", "400", "--save-freq", "0", *TINY, "--tensorboard-log", str(tmp_path)]
    printed = command("train", *options, code=130)
    file = checkpoint_in(tmp_path)
    steps = 80 if moment == "first step" else 400
    assert weights(file)[0] == steps
    assert f"saved after {steps} timesteps in {file}" in printed
    command("train", "-i", str(file))
    assert weights(file)[0] == 400
    assert len(json.loads((file.parent / "args.json").read_text())["resumed"]) == 1


# --- folders ---------------------------------------------------------------------------------------------------------
def test_folders_are_numbered_and_stay_in_their_place(tmp_path: Path) -> None:
    assert make_folder(tmp_path, "ppo", "RecBandit-v0") == tmp_path / "ppo" / "RecBandit-v0_1"
    (tmp_path / "ppo" / "RecBandit-v0_7").mkdir()
    (tmp_path / "ppo" / "RecBandit-v0_x").mkdir()
    assert make_folder(tmp_path, "ppo", "RecBandit-v0").name == "RecBandit-v0_8"
    assert make_folder(tmp_path, "ppo", "my_module:Class").name == "my_module.Class_1"
    assert make_folder(tmp_path, "ppo", "../../x/y:Z").resolve().parent == (tmp_path / "ppo").resolve()


def test_commit_is_that_of_the_checkout_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    place = tmp_path / "site-packages" / "recgym" / "agents" / "run_folder.py"
    monkeypatch.setattr(run_folder, "__file__", str(place))
    assert commit() is None


# --- values ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("env_id", agent_ids())
def test_the_recipe_is_what_the_weights_were_trained_with(env_id: str) -> None:
    header, _ = read(agent_file(env_id))
    recipe = tuned_values("meta_ppo", env_id)
    assert {**header["arguments"], "n_envs": header["env"]["n_envs"]} == {
        name: value for name, value in recipe.items() if name != "n_timesteps"
    }
    rollout = header["env"]["n_envs"] * recgym.make_scenario(env_id).horizon
    assert recipe["n_timesteps"] <= header["num_timesteps"] < recipe["n_timesteps"] + rollout


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_tuned_values_are_of_known_environments_and_build(algo: str) -> None:
    tables = tomllib.loads(TABLES.read_text())[algo]
    assert set(tables) <= {"default", *recgym.SCENARIOS}
    assert algo != "meta_ppo" or set(tables) == {"default"}  # a recipe has the rest
    for env_id in ("RecBandit-v0", "my_module:Class"):
        values = tuned_values(algo, env_id)
        assert values["n_timesteps"] > 0 and values["n_envs"] > 0
    assert tuned_values(algo, "my_module:Class") == tables["default"]


@pytest.mark.parametrize("env_id", agent_ids())
def test_without_an_expert_the_reward_alone_is_learned_from(env_id: str) -> None:
    values = arguments_of(RunOptions(env=env_id, without_expert=True))
    env = make_vec_env(env_id, 2)
    model = build("meta_ppo", env, {k: v for k, v in values.items() if k not in ("n_timesteps", "n_envs")}, seed=0)
    assert isinstance(model, MetaPPO)
    assert (model.expert, model.expert_coef, model.pretrain_steps, model.learn_from) == (None, 0.0, 0, "reward")
    assert not model.policy.options.auxiliary and not model.policy.options.asymmetric_critic
    recipe = tuned_values("meta_ppo", env_id).get("policy_kwargs", {})
    assert {**recipe, "auxiliary": 0} == {"auxiliary": 0, **values["policy_kwargs"]}  # the same network


def test_without_an_expert_none_can_be_named() -> None:
    for given in ({"pretrain_expert": "ucb1"}, {"pretrain_steps": 10}):
        with pytest.raises(ValueError, match="--without-expert imitates nobody"):
            arguments_of(RunOptions(without_expert=True, **given))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="--without-expert is an option of meta_ppo, not of ppo"):
        arguments_of(RunOptions(algo="ppo", without_expert=True))


def test_options_come_before_tuned_values() -> None:
    options = RunOptions(
        hyperparam={"gamma": 0.5, "n_epochs": 3.0},
        pretrain_expert="ucb1",
        pretrain_steps=7,
        init_policy="softmax",
        vary=(("arms", [2, 3]), ("horizon", [5])),
    )
    values = arguments_of(options)
    tuned = tuned_values("meta_ppo", "RecBandit-v0")
    own = {
        "gamma": 0.5,
        "n_epochs": 3,
        "expert": "ucb1",
        "pretrain_steps": 7,
        "policy_kwargs": {"init_policy": "softmax"},
    }
    assert values == {**tuned, **own, "variants": [{"arms": 2, "horizon": 5}, {"arms": 3, "horizon": 5}]}
    assert isinstance(values["n_epochs"], int)


def test_a_resumed_run_takes_over_what_is_left_open(tmp_path: Path) -> None:
    env = make_vec_env("RecBandit-v0", 2, arms=3, horizon=10)
    arguments = {"policy": "MlpPolicy", **PPO}
    model = build("ppo", env, {**arguments, "batch_size": 20}, device="cpu", seed=0)
    model.learn(20)
    log = tmp_path / "sales.csv"
    log.write_text("units\n1\n")
    options = RunOptions(algo="ppo", eval_trials=7, log=log, log_column={"sales": "units"})
    kept = options_to_keep(options, total=60, registered=True) | {"log": str(log), "log_digest": log_digest(log)}
    counters: dict[str, Any] = {"last_evaluation": 20, "options": kept}
    path = save(tmp_path / "x", model, arguments={**arguments, "batch_size": 20}, training=True, counters=counters)
    resumption = resume({"trained_agent": path, "trials": 9, "num_threads": 1})
    assert resumption.last_evaluation == 20
    again = resumption.options
    assert (again.n_timesteps, again.eval_trials, again.trials) == (60, 7, 9)
    assert (again.log, again.log_column) == (log, {"sales": "units"})
    assert resumption.log_record == {"log": str(log), "log_digest": log_digest(log)}
    assert (again.env, again.param, again.algo) == ("RecBandit-v0", {"arms": 3, "horizon": 10}, "ppo")
    counters["options"]["log_column"] = [["sales", "units"]]  # as the first checkpoints have it
    counters["options"]["n_timesteps"] = "many"
    save(path, model, arguments={**arguments, "batch_size": 20}, training=True, counters=counters)
    with pytest.raises(ValueError, match="does not say how long its run is"):
        resume({"trained_agent": path})
    assert resume({"trained_agent": path, "n_timesteps": 60}).options.log_column == {"sales": "units"}
