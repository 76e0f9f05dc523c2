"""The tables of published results as Markdown, written from what `recgym results` has measured.

A page takes one up between two comments, and keeps everything around it:

    <!-- results RecBandit-v0 gittins ucb1_tuned -->      all policies, or the agent, both ends and those named
    <!-- results shipped -->                              a row per shipped agent
    <!-- results shifted -->                              a row per agent and shifted form of its problem
    <!-- results rl2 -->                                  the published table
    <!-- end of results -->
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import recgym
from recgym.baselines import family_of
from recgym.benchmarks.results import AGENT, SUITE, Cell, PublishedSize, data_file, env_cells, read_cell, sizes
from recgym.cli.pages import table
from recgym.evaluation import rl2
from recgym.evaluation.report import KNOWS
from recgym.evaluation.trials import ARGMAX
from recgym.files import write_atomically

__all__ = ["fill", "fill_pages", "result_page"]

BLOCK = re.compile(r"(<!-- results (?P<what>[^\n]*?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
PAGES = "../environments/"
ENDS = ("informed", AGENT)  # of a table that shows some policies only


def result_page(folder: Path, env: str) -> str:
    """Write the page of an environment's results."""
    report = _report(folder, Cell(env, {}))
    label = f",{AGENT}=pretrained:{env},{AGENT}{ARGMAX}=pretrained:{env}" if AGENT in report["policies"] else ""
    lines = [f"# Results: {env}", "", _held_out(report), f"What is played is described on [its page]({PAGES}{env}.md)."]
    lines += ["", "```sh", f"recgym evaluate --env {env} --policies baselines{label}", "```", ""]
    about = [INTERVALS] if AGENT in report["policies"] else []
    if "of_bound" in next(iter(report["policies"].values())) and (bound := family_of(env).bound):
        about.append(bound)
    lines += [policies_table(report), "", *(line for text in about for line in (text, ""))]
    lines += [f"![Over the decisions of a trial]({env}.png)", ""]
    if len(of_this := [cell for cell in env_cells(env) if cell.env == env]) > 1:
        lines += ["## Where the problem is shifted", "", SHIFTED_TEXT, "", shifted_table(folder, of_this[1:]), ""]
    return "\n".join(lines)


INTERVALS = (
    "Intervals cover trials: how far other held-out trials would move the figures of these weights. They do not cover "
    "training: other seeds of it give other weights."
)
SHIFTED_TEXT = (
    "The same weights on tasks they were not trained for, minus the best of all prior-free and of all prior-aware "
    "baselines there, whose constants stay those of the preset."
)


def _held_out(report: Mapping[str, Any]) -> str:
    return f"{report['trials']:,} held-out trials, the same tasks and luck for every policy, 95 % bootstrap intervals."


def _report(folder: Path, cell: Cell | PublishedSize) -> dict[str, Any]:
    report: dict[str, Any] = read_cell(data_file(folder, cell))["report"]
    return report


def policies_table(report: Mapping[str, Any], names: tuple[str, ...] = ()) -> str:
    """A row per policy, best return first.

    Args:
        report: of a cell.
        names: the policies that are shown, beside the agent and the informed one; none: all.

    Raises:
        ValueError: the report has no such policy.
    """
    policies = report["policies"]
    if unknown := [name for name in names if name not in policies]:
        raise ValueError(f"the results of {report['env']} have no policy {unknown[0]!r}: {', '.join(policies)}")
    chosen = [name for name in policies if not names or name in names or name in ENDS]
    chosen.sort(key=lambda name: -policies[name]["return"]["mean"])
    agents = [name for name in sorted(chosen) if policies[name]["kind"] == "agent"]
    bounded = "of_bound" in policies[chosen[0]]
    unit = _unit(report["env"])
    extra = tuple(policies[chosen[0]].get("figures", {}))
    head = ["policy", "knows", f"{unit} per trial", "% of bound" if bounded else "regret", "normalised score", *extra]
    rows = []
    for name in chosen:
        policy = policies[name]
        own = name in agents
        share = {key: 100 * value for key, value in policy["of_bound"].items()} if bounded else policy["regret"]
        row = [f"**{name}**" if own else f"`{name}`", KNOWS[policy["kind"]], interval(policy["return"])]
        row += [interval(share, 1) if bounded else interval(share), interval(policy["normalised"], 3)]
        row += [interval(policy["figures"][key], 1) for key in extra]
        row += ["" if name == agent else interval(policies[agent]["versus"][name]) for agent in agents]
        rows.append(row)
    return table([*head, *(f"{agent} minus it" for agent in agents)], rows)


def shipped_table(folder: Path) -> str:
    """A row per shipped agent."""
    rows = []
    for cell in env_cells():
        if not cell.parameters and AGENT in (report := _report(folder, cell))["policies"]:
            rows.append((f"`{cell.env}`", *agent_cells(report), interval(report["policies"][AGENT]["normalised"], 3)))
    return table((*HEAD, "normalised score"), rows)


def shifted_table(folder: Path, of: list[Cell]) -> str:
    """A row per shifted problem."""
    rows = []
    for cell in of:
        if cell.parameters and AGENT in (report := _report(folder, cell))["policies"]:
            changed = ", ".join(f"`{key}={json.dumps(value)}`" for key, value in report["parameters"].items())
            rows.append((f"`{cell.env}`, {changed}", *agent_cells(report)))
    return table(HEAD, rows)


HEAD = ("environment", f"{AGENT}, return", "minus the best prior-free baseline", "minus the best prior-aware one")


def agent_cells(report: Mapping[str, Any]) -> tuple[str, str, str]:
    """The agent's return, and its differences to the best baselines of both kinds."""
    policies = report["policies"]
    versus = []
    for kind in ("prior-free", "prior-aware"):
        of_kind = [name for name, each in policies.items() if each["kind"] == kind]
        best = max(of_kind, key=lambda name: policies[name]["return"]["mean"])
        versus.append(f"{interval(policies[AGENT]['versus'][best], 3)}, `{best}`")
    return interval(policies[AGENT]["return"]), *versus  # type: ignore[return-value]


def interval(figure: Mapping[str, float], digits: int = 2) -> str:
    """Mean and 95 % interval; "-" where it is no number."""
    if not math.isfinite(figure["mean"]):
        return "-"
    mean, low, high = (f"{figure[part]:.{digits}f}" for part in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})"


def _unit(env: str) -> str:
    objectives = recgym.make_scenario(env).objectives
    return objectives[0] if len(objectives) == 1 else "reward"


def suite_report(folder: Path) -> dict[str, Any]:
    """The report of the published table, as `recgym.evaluation.rl2.play_suite` gives it for all sizes at once."""
    reports = [_report(folder, size) for size in sizes()]
    return {**reports[0], "cells": [cell for report in reports for cell in report["cells"]]}


# --- pages -----------------------------------------------------------------------------------------------------------
def fill(text: str, folder: Path, page: str) -> str:
    """Fill the blocks of a page.

    Args:
        text: of the page.
        folder: where results lie.
        page: its name, for errors.

    Raises:
        ValueError: a block asks for what is not there.
    """

    def block(match: re.Match[str]) -> str:
        what, *names = match["what"].split()
        if what == "shipped":
            content = shipped_table(folder)
        elif what == "shifted":
            content = shifted_table(folder, env_cells())
        elif what == SUITE:
            content = rl2.markdown(suite_report(folder)).strip()
        elif what in recgym.SCENARIOS:
            content = policies_table(_report(folder, Cell(what, {})), tuple(names))
        else:
            raise ValueError(
                f"{page}: no results {what!r}; there are shipped, shifted, {SUITE}, {', '.join(recgym.SCENARIOS)}"
            )
        return f"{match[1]}{content}\n{match[3]}"

    return BLOCK.sub(block, text)


def fill_pages(root: Path, folder: Path) -> list[Path]:
    """Write the pages of results, and the blocks of all other pages of a checkout; returns those that changed.

    Args:
        root: of the checkout.
        folder: where results lie.
    """
    pages = {folder / f"{env}.md": result_page(folder, env) for env in recgym.SCENARIOS}
    for path in (*root.glob("*.md"), *root.glob("agents/**/*.md"), *root.glob("docs/**/*.md")):
        if path not in pages and BLOCK.search(text := path.read_text()):
            pages[path] = fill(text, folder, str(path.relative_to(root)))
    changed = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        write_atomically(path, pages[path].encode())
    return sorted(changed)
