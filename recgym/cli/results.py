"""Make the published results: every shipped agent beside every baseline, at home and where its problem is shifted.

What is there already, and made from the agents and scenarios that are there now, is kept: a run that was cut off goes
on. Then the tables of README, cards and documentation are written from it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from recgym.cli.options import choose_device, guarded, make_parser
from recgym.terminal import Table, say

__all__ = ["main"]

TRIALS, QUICK_TRIALS = 4000, 400
EXAMPLES = """examples:
  recgym results                           # in a checkout: docs/results, and the pages that show it
  recgym results --only Drift              # of environments with Drift in their id
  recgym results --quick                   # plays few trials, and says which published figures it does not find again
  recgym results --folder mine --trials 1000
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = make_parser("results", __doc__ or "", EXAMPLES)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("docs/results"), help="where results lie (default: %(default)s)")
    add("--only", default="", metavar="NAME", help="environments that have NAME in their id")
    add("--trials", type=int, help=f"per policy (default: {TRIALS}, with --quick {QUICK_TRIALS})")
    add("--quick", action="store_true", help="write nothing: check what is there in a few minutes")
    add("--device", default="cpu", help="of the agents: auto, cpu, cuda (default: %(default)s)")
    options = parser.parse_args(arguments)
    return guarded(lambda: run_results(options))


def run_results(options: argparse.Namespace) -> int:
    """Make or check results as the options say; returns the exit status."""
    from recgym.benchmarks.results import cells

    if options.trials is None:
        options.trials = QUICK_TRIALS if options.quick else TRIALS
    if options.trials < 2:
        raise ValueError("--trials must be at least 2")
    options.device = choose_device(options.device)
    chosen = cells(options.only)
    return check_all(options, chosen) if options.quick else make_all(options, chosen)


def make_all(options: argparse.Namespace, chosen: Sequence) -> int:
    """Measure what is not there, and write the pages."""
    from recgym.benchmarks.results import cells, data_file, is_current, measure_cell
    from recgym.cli.result_pages import fill_pages
    from recgym.evaluation.report import check_drawable

    check_drawable(figure=True)
    for place, cell in enumerate(chosen, start=1):
        there = is_current(options.folder, cell, options.trials)
        say(f"{place} of {len(chosen)}: {cell.name}{', there already' if there else ''}")
        if not there:
            measure_cell(options.folder, cell, trials=options.trials, device=options.device)
    missing = [cell.name for cell in cells() if not data_file(options.folder, cell).exists()]
    if missing:
        say(f"no pages yet, {len(missing)} results are missing: {', '.join(missing)}")
        return 0
    root = options.folder.resolve().parents[1]
    if options.folder.resolve() != root / "docs" / "results":
        say(f"results in {options.folder}; pages are written where it is docs/results of a checkout")
        return 0
    for path in fill_pages(root, options.folder.resolve()):
        say(f"wrote {path.relative_to(root)}")
    return 0


def check_all(options: argparse.Namespace, chosen: Sequence) -> int:
    """Play the published cells in few trials; 1 where a figure is not found again."""
    from recgym.benchmarks.results import check_cell, data_file, read_cell

    for cell in chosen:  # before the work
        if not data_file(options.folder, cell).exists():
            raise ValueError(f"there are no results of {cell.name} in {options.folder}: `recgym results` makes them")
        read_cell(data_file(options.folder, cell))
    wrong = []
    for place, cell in enumerate(chosen, start=1):
        say(f"{place} of {len(chosen)}: {cell.name}")
        wrong += list(check_cell(options.folder, cell, trials=options.trials, device=options.device))
    if not wrong:
        say(f"all published numbers of {len(chosen)} results agree with {options.trials:,} trials each")
        return 0
    rows = Table(
        "published, but not found again", ("result", "policy", "figure", "published", "found", "standard errors")
    )
    for each in wrong:
        numbers = (f"{each.published:.3f}", f"{each.found:.3f}", f"{each.errors:.1f}")
        rows.add(each.cell, each.policy, each.figure, *numbers)
    rows.show()
    return 1
