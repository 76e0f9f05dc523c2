"""The file of a checkpoint: names, damage, forgery."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from recgym.agents.archive import HEADER, LATER, MAX_ENVS, MAX_HEADER
from recgym.agents.checkpoint import load, read, save
from recgym.layout import Layout
from tests.small_checkpoints import SMALL, as_first_format, edited, make, write


def test_the_first_files_say_nothing_of_spaces(written: Path, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(without("spaces")(written.read_bytes()))
    assert b"spaces" not in path.read_bytes()
    assert load(path).num_timesteps == 0
    assert read(path)[0]["spaces"] is None


def test_saving_is_all_or_nothing(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(written.read_bytes())

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("recgym.files.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(path, make("ppo"))
    assert path.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


BIAS = "policy.action_net.bias"


def nan(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS] * float("nan")


def missing(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    del tensors[BIAS]


def renamed(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["policy.other"] = tensors.pop(BIAS)


def reshaped(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = torch.zeros(7)


def retyped(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS].double()


def future(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    header["format"] = 999


def other_class(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    header["algo"] = "os:system"


def bit_flip(content: bytes) -> bytes:
    return content[:-5] + bytes([content[-5] ^ 4]) + content[-4:]


def without(key: str) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header.pop(key))


def with_value(key: str, value: Any) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header.update({key: value}))


def within(key: str, **values: Any) -> Callable[[bytes], bytes]:
    return lambda content: edited(content, lambda header, tensors: header[key].update(values))


def eight_bits(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors[BIAS] = tensors[BIAS].to(torch.float8_e4m3fn)


def nested(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["recgym"] = '{"format":1,"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def nameless(**values: Any) -> Callable[[bytes], bytes]:
    """A file of an environment that is not registered."""

    def edit(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        header["env"]["id"] = None
        header["spaces"] = {"observation": [19], "action": [4]}
        header.update(values)

    return lambda content: edited(content, edit)


FIELD = ["time", 0.0, 1.0, "share", 1, "clock"]
OTHER = ["chosen", 0.0, 1.0, "", 1, "action"]
ARGUMENTS = SMALL["ppo"]
REFUSED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "too short"),
    "truncated header": (lambda c: c[:40], "truncated"),
    "truncated tensors": (lambda c: c[:-100], "truncated"),
    "bit flip": (bit_flip, "does not match its digest"),
    "oversized header": (lambda c: struct.pack("<Q", MAX_HEADER + 1) + c[8:], "its header would take"),
    "zip": (lambda c: b"PK\x03\x04" + c, "zip or pickle"),
    "pickle": (lambda c: b"\x80\x04\x95" + c, "zip or pickle"),
    "text": (lambda c: b"hello, this is not a checkpoint at all", "not a checkpoint"),
    "foreign safetensors": (lambda c: safetensors.torch.save({"a": torch.zeros(2)}), "without recgym's header"),
    "NaN": (lambda c: edited(c, nan), "holds NaN"),
    "missing": (lambda c: edited(c, missing), r"missing \['action_net.bias'\]"),
    "renamed": (lambda c: edited(c, renamed), r"unexpected \['other'\]"),
    "shape": (lambda c: edited(c, reshaped), r"'action_net.bias' should be torch.float32 \(4,\), found .* \(7,\)"),
    "dtype": (lambda c: edited(c, retyped), "found torch.float64"),
    "future": (lambda c: edited(c, future), "upgrade recgym"),
    **{f"no {key}": (without(key), f"header's '{key}' is missing") for key in HEADER if key not in LATER},
    "format 0": (with_value("format", 0), "no format version"),
    "steps as text": (with_value("num_timesteps", "80"), "header's 'num_timesteps' is missing or no int"),
    "algo as list": (with_value("algo", ["ppo"]), "header's 'algo' is missing or no str"),
    "half an env": (with_value("env", {"id": "RecBandit-v0"}), "must have id, parameters and n_envs"),
    "eight bits": (lambda c: edited(c, eight_bits), "'policy.action_net.bias' is of torch.float8_e4m3fn"),
    "nested": (nested, "not a checkpoint"),
    "format True": (with_value("format", True), "no format version"),
    **{
        f"{key} {value!r}": (with_value(key, value), f"header's '{key}' {message}")
        for key, value, message in (
            ("num_timesteps", -1, "must be at least 0, is -1"),
            ("num_timesteps", True, "is missing or no int"),
            ("threads", 0, "must be at least 1, is 0"),
            ("threads", True, "is missing or no int"),
            ("exploration_rate", True, "is missing or no float"),
            ("exploration_rate", 1.5, r"must be in \[0, 1\], is 1.5"),
            ("exploration_rate", float("nan"), r"must be in \[0, 1\], is nan"),
            ("counters", [], "is missing or no dict"),
            ("training", [], "is missing or no dict"),
            ("spaces", [], "is missing or no dict"),
        )
    },
    **{
        f"n_envs {value!r}": (within("env", n_envs=value), r"n_envs in the header must be a whole number in \[1, ")
        for value in (0, -3, True, "4", 1.0, None, MAX_ENVS + 1, 10**30)
    },
    "env id as number": (within("env", id=3), "must have a text as id and a mapping as parameters"),
    "env parameters as list": (within("env", parameters=[]), "must have a text as id and a mapping as parameters"),
    "another env": (within("env", id="RecBandit-v9"), "cannot be made: no environment 'RecBandit-v9'; did you mean"),
    "unknown parameter": (
        within("env", parameters={"seed": 1}),
        "cannot be made: Bandit got an unexpected keyword argument 'seed'",
    ),
    "parameter out of range": (within("env", parameters={"arms": -1}), "cannot be made: Bandit: arms must be a whole"),
    "parameter as text": (within("env", parameters={"arms": "4"}), "cannot be made: Bandit: arms must be a whole"),
    **{
        f"layout {i}": (with_value("layout", layout), "header's 'layout' must have context and candidate")
        for i, layout in enumerate(
            (
                {},
                {"context": [FIELD], "candidate": [OTHER]},
                {"context": [FIELD], "candidate": [OTHER], "candidates": 4, "more": 1},
                {"context": {}, "candidate": [OTHER], "candidates": 4},
                {"context": None, "candidate": [OTHER], "candidates": 4},
                *({"context": [FIELD], "candidate": [OTHER], "candidates": k} for k in (0, True, "4", 4.0)),
                *(
                    {"context": [FIELD], "candidate": [field], "candidates": 4}
                    for field in (
                        "chosen",
                        3,
                        FIELD,  # a name twice
                        OTHER[:4],
                        OTHER[:5],  # the first format had no roles
                        [*OTHER, 1],
                        [1, *OTHER[1:]],
                        ["chosen", "0", 1.0, "", 1, "action"],
                        ["chosen", 0.0, None, "", 1, "action"],
                        ["chosen", 0.0, 1.0, None, 1, "action"],
                        [*OTHER[:4], 0, "action"],
                        [*OTHER[:4], "1", "action"],
                        [*OTHER[:4], True, "action"],
                        [*OTHER[:5], "villain"],
                        [*OTHER[:5], None],
                        [*OTHER[:5], ["action"]],
                    )
                ),
            )
        )
    },
    "layout None": (with_value("layout", None), "must have a layout and no spaces for an environment with an id"),
    "spaces beside an id": (with_value("spaces", {"observation": [19], "action": [4]}), "must have a layout and no"),
    "no id": (within("env", id=None), "must have a layout and no spaces for an environment with an id, else spaces"),
    "no id and no env": (nameless(), r"not registered, so pass one: load\(..., env=recgym"),
    **{
        f"spaces {i}": (nameless(spaces=spaces), "header's 'spaces' must have observation and action, lists of sizes")
        for i, spaces in enumerate(
            (
                {},
                {"observation": [19]},
                {"observation": [19], "action": 4},
                {"observation": [19], "action": ["4"]},
                {"observation": [-1], "action": [4]},
                {"observation": [19], "action": [4], "more": []},
            )
        )
    },
    **{
        f"argument {i}": (with_value("arguments", arguments), message or "ppo cannot be built from the header's")
        for i, (arguments, message) in enumerate(
            (
                ({"policy": "MlpPolicy", "evil": 1}, "'evil'"),
                (
                    {"policy": "MlpPolicy", "device": "cpu"},
                    "device in the header's 'arguments' is not for a file to decide",
                ),
                ({}, "the arguments name no policy"),
                ({"policy": "Evil"}, "Policy Evil unknown"),
                ({"policy": ["MlpPolicy"]}, ""),
                ({"policy": None}, ""),
                ({**ARGUMENTS, "learning_rate": "lin_x"}, "learning_rate in .* is 'lin_x'"),
                ({**ARGUMENTS, "learning_rate": "lin_nan"}, "learning_rate in .* is 'lin_nan'"),
                ({**ARGUMENTS, "learning_rate": -1.0}, "learning_rate in .* is -1.0"),
                ({**ARGUMENTS, "clip_range": "lin_"}, "clip_range in .* is 'lin_'"),
                ({**ARGUMENTS, "n_steps": "10"}, ""),
                ({**ARGUMENTS, "policy_kwargs": 5}, ""),
                ({**ARGUMENTS, "policy_kwargs": {"net_arch": "abc"}}, ""),
                ({**ARGUMENTS, "policy_kwargs": {"net_arch": [-3]}}, "net_arch in .* is -3"),
                ({**ARGUMENTS, "policy_kwargs": {"activation_fn": "Evil"}}, "activation_fn 'Evil'"),
                ({**ARGUMENTS, "policy_kwargs": {"features_extractor_class": "os.system"}}, ""),
                ({**ARGUMENTS, "_init_setup_model": False}, "is not for a file to decide"),
            )
        )
    },
    "class": (lambda c: edited(c, other_class), "is not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_clear_error(case: str, written: Path, tmp_path: Path) -> None:
    damage, message = REFUSED[case]
    path = tmp_path / "agent.safetensors"
    path.write_bytes(damage(written.read_bytes()))
    with pytest.raises(ValueError, match=message) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("first", [b"\x80", b"PK"])
def test_a_header_whose_length_looks_like_a_pickle_is_read(first: bytes, written: Path, tmp_path: Path) -> None:
    content = written.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    aim = int.from_bytes(first, "little") + (1 << 8 * len(first)) * (-(-length // (1 << 8 * len(first))))
    padded = struct.pack("<Q", aim) + content[8 : 8 + length] + b" " * (aim - length) + content[8 + length :]
    path = tmp_path / "agent.safetensors"
    path.write_bytes(padded)
    assert padded.startswith(first)
    assert read(path)[0]["algo"] == "ppo"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(value: float, written: Path, tmp_path: Path) -> None:
    path = tmp_path / "agent.safetensors"
    path.write_bytes(written.read_bytes())
    model = make("ppo")
    with torch.no_grad():
        model.policy.action_net.bias[2] = value
    with pytest.raises(ValueError, match=r"nothing was written: tensor 'policy.action_net.bias' holds NaN") as caught:
        write(path, model)
    assert str(caught.value).startswith(f"{path}: ")
    assert path.read_bytes() == written.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_what_json_cannot_carry_is_not_saved(tmp_path: Path) -> None:
    model = make("ppo")
    for wrong, message in (
        ({"arguments": {**ARGUMENTS, "policy_kwargs": {"activation_fn": torch.nn.ReLU}}}, "argument 'policy_kwargs'"),
        ({"arguments": {**ARGUMENTS, "policy": type(model.policy)}}, "argument 'policy' cannot be kept"),
        ({"arguments": {**ARGUMENTS, "clip_range": lambda left: left}}, "clip_range = .* give a number, or 'lin_X'"),
        ({"arguments": ARGUMENTS, "counters": {"seen": {1, 2}}}, "nothing was written: .* set"),
        ({"arguments": ARGUMENTS, "counters": {"seen": "x" * MAX_HEADER}}, "nothing was written: a header of"),
    ):
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "wrong", model, **wrong)
    assert not list(tmp_path.iterdir())


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", ["agent", "agent.zip", "agent.safetensors"])
def test_a_file_is_found_under_the_name_it_was_saved_by(name: str, tmp_path: Path) -> None:
    assert write(tmp_path / name, make("ppo")) == tmp_path / "agent.safetensors"
    assert load(tmp_path / name).num_timesteps == read(str(tmp_path / name))[0]["num_timesteps"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["agent.safetensors"]


def test_a_name_may_have_dots(tmp_path: Path) -> None:
    path = write(tmp_path / "lr_0.5", make("ppo"))
    assert path.name == "lr_0.5.safetensors"
    assert read(tmp_path / "lr_0.5")[0]["algo"] == "ppo"


def test_a_zip_that_is_there_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "agent", make("ppo"))
    (tmp_path / "agent.zip").write_bytes(b"PK\x03\x04 and more than nine bytes")
    with pytest.raises(ValueError, match="zip or pickle"):
        load(tmp_path / "agent.zip")


# --- the first format, which had no roles ----------------------------------------------------------------------------
SHIPPED = sorted((Path(__file__).parent.parent / "agents").rglob("*.safetensors"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_shipped_files_have_the_roles_of_their_environment(path: Path) -> None:
    header, _ = read(path)
    layout, env = Layout.from_json(header["layout"]), load(path, device="cpu").env
    assert [(field.name, field.role) for field in layout] == [(f.name, f.role) for f in env.get_attr("layout")[0]]
    if header["format"] == 1:
        assert {len(field) for block in ("context", "candidate") for field in header["layout"][block]} == {5}


def test_a_file_of_the_first_format_plays_as_one_of_the_second(tmp_path: Path) -> None:
    path = write(tmp_path / "agent", make("meta_ppo"), "meta_ppo")
    old = tmp_path / "old.safetensors"
    old.write_bytes(edited(path.read_bytes(), as_first_format))
    ours, theirs = (load(file, device="cpu") for file in (path, old))
    assert ours.policy.layout == theirs.policy.layout
    assert all(map(torch.equal, ours.policy.state_dict().values(), theirs.policy.state_dict().values()))
    mixture = tmp_path / "mixture.safetensors"
    mixture.write_bytes(edited(path.read_bytes(), lambda header, _: header.update(format=1)))
    with pytest.raises(ValueError, match=r"lists of \[name, low, high, meaning, width\] with each name once"):
        load(mixture)
