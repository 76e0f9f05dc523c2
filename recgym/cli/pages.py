"""What there is to know of an environment, as Markdown: its page in the documentation, and `recgym list --markdown`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import recgym
from recgym.baselines import baselines_for, family_of
from recgym.layout import Field
from recgym.parameters import parameters_of, stands_for
from recgym.scenario import Scenario

__all__ = ["environment_page", "environments_table", "meaning_of"]

ALWAYS_TOLD = (
    "Beside these, at every step: `expected_reward`, the mean reward of the action given the hidden task, and "
    "`regret`, by how much that of the best action of the moment is higher; both are NaN with weights for which no "
    "optimum is known. "
    "Where a trial begins, `task` has the hidden task, an array for each of its fields."
)
WRITTEN_HERE = ("Arguments", "Version History")  # sections of a docstring that a page shows in another form or place


def meaning_of(env: str, scenario: Any) -> str:
    """Say what an environment is, in a sentence."""
    preset = recgym.SCENARIOS.get(env)
    if preset is not None and preset.about:
        return preset.about
    lines = (type(scenario).__doc__ or "").strip().splitlines()
    return lines[0] if lines else type(scenario).__name__


def environments_table(*, linked: bool = False) -> str:
    """The registered environments, a row each.

    Args:
        linked: whether an id is a link to `ID.md`.
    """
    rows = []
    for env_id in recgym.SCENARIOS:
        scenario = recgym.make_scenario(env_id)
        name = f"[`{env_id}`]({env_id}.md)" if linked else f"`{env_id}`"
        rows.append((name, meaning_of(env_id, scenario), str(scenario.layout.candidates), str(scenario.horizon)))
    return table(("id", "what it is", "candidates", "decisions"), rows)


def environment_page(env: str, documentation: Path | None = None) -> str:
    """Write the page of an environment: description, equations, fields, parameters, baselines, results.

    Args:
        env: a key of `recgym.SCENARIOS`.
        documentation: the folder of the documentation; what lies there for this environment (equations, results,
            the picture of a trial) is named in the page. None: the page stands alone.

    Raises:
        ValueError: no environment has this id.
    """
    if env not in recgym.SCENARIOS:
        raise ValueError(f"no environment {env!r}; there are {', '.join(recgym.SCENARIOS)}")
    scenario = recgym.make_scenario(env)
    kind = type(scenario)
    sections = sections_of(kind.__doc__ or "")
    preset = recgym.SCENARIOS[env].parameters
    lines = [f"# {env}", "", meaning_of(env, scenario), ""]
    lines += [f"`{kind.__module__}.{kind.__name__}`, of the family *{family_of(scenario).page}*.", ""]
    if documentation is not None:
        lines += [f"![A trial]({env}.png)", "", '*One trial, as `render_mode="rgb_array"` draws it.*', ""]
    if documentation is not None and (guide := family_of(scenario).guide):
        lines += [f"How to play, train and use it: the [guide](../guides/{guide}.md).", ""]
    for base in named_bases(kind, sections):
        lines += [f"What is said to be as in `{base.__name__}` stands on the page of {page_of(base)}.", ""]
    for title, text in sections.items():
        if title in WRITTEN_HERE:
            continue
        lines += [f"## {title}", "", text, ""]
        if title == "Rewards" and "Info" not in sections:
            names = ", ".join(f"`{name}`" for name in (*scenario.objectives, *scenario.costs))
            lines += ["## Info", "", f"{names}.", "", ALWAYS_TOLD, ""]
        if title == "Info":
            lines += [ALWAYS_TOLD, ""]
        if title == "Description" and documentation is not None:
            lines += equations(kind, documentation)
        if title == "Observation Space":
            lines += [*fields_of(scenario), ""]
    lines += ["## Parameters", "", "Keywords of `gym.make`, and `--param NAME=VALUE` of every command.", ""]
    lines += [parameters_table(kind, preset), "", "## Baselines", ""]
    rows = [(f"`{name}`", each.kind, each.meaning) for name, each in baselines_for(scenario).items()]
    lines += [table(("`--policies`", "kind", "what it does"), rows), ""]
    if documentation is not None and (documentation / "results" / f"{env}.md").exists():
        lines += ["## Results", "", f"Scores on held-out trials, with intervals: [results](../results/{env}.md).", ""]
    if "Version History" in sections:
        lines += ["## Version History", "", sections["Version History"], ""]
    return "\n".join(lines)


def sections_of(docstring: str) -> dict[str, str]:
    """The sections of a scenario's docstring by title, without the indent."""
    parts = re.split(r"^ *## (.+)$", docstring, flags=re.MULTILINE)
    texts = [re.sub(r"^    ", "", part, flags=re.MULTILINE).strip() for part in parts]
    return dict(zip(texts[1::2], texts[2::2], strict=True))


def named_bases(kind: type, sections: dict[str, str]) -> list[type[Scenario]]:
    """The scenario classes that a docstring refers to with "As `NAME`"."""
    names = set(re.findall(r"As `(\w+)`", " ".join(sections.values())))
    return [base for base in kind.__mro__[1:] if base.__name__ in names]


def page_of(kind: type) -> str:
    """A link to the page of the first environment of a scenario class; its name where there is none."""
    for env_id, preset in recgym.SCENARIOS.items():
        if stands_for(preset.scenario, kind):
            return f"[`{env_id}`]({env_id}.md)"
    return f"`{kind.__name__}`"


def equations(kind: type, documentation: Path) -> list[str]:
    """An include of the equations of a class, or of the nearest that it inherits from; nothing where none has any."""
    for base in kind.__mro__:
        if (documentation / "equations" / f"{base.__name__}.md").exists():
            return ["## Equations", "", f"```{{include}} ../equations/{base.__name__}.md", "```", ""]
    return []


def fields_of(scenario: Scenario) -> list[str]:
    """The fields of an observation, with their indices."""
    layout, (start, step, total) = scenario.layout, scenario.layout.sizes
    rows = []
    column = 0
    for field in layout.context:
        index = str(column) if field.width == 1 else f"{column} to {column + field.width - 1}"
        rows.append((index, *described(field)))
        column += field.width
    for field in layout.candidate:
        index = f"{start}+{step}i" if field.width == 1 else f"{start} to {start + field.width - 1}, +{step}i"
        rows.append((index, *described(field)))
        start += field.width
    read = 'Read one by its name: `env.unwrapped.layout.get(observation[None], "time")[0]`.'
    head = f"{total} numbers (float32); i counts the {layout.candidates} candidates from 0. {read}"
    return [head, "", table(("index", "field", "range", "meaning"), rows)]


def described(field: Field) -> tuple[str, str, str]:
    return f"`{field.name}`", f"{field.low:.3g} to {field.high:.3g}", field.meaning


def parameters_table(kind: type[Scenario], preset: dict[str, Any]) -> str:
    """Every parameter of a scenario class: its value in a preset, unit and range, and what it does."""
    rows = []
    for each, known in parameters_of(kind):
        value = preset.get(each.name, each.default)
        shown = "" if value is MISSING else f"`{value!r}`"
        rows.append((f"`{each.name}`", shown, known.span if known else "", known.effect if known else ""))
    return table(("parameter", "value", "unit and range", "what it does"), rows)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
