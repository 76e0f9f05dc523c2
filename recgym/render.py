"""Pictures of a trial: the candidates' true and estimated rewards, and how the trial went.

How it went is the regret so far, or, where the scenario has `panels`, what `trace` says after each decision.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from recgym.arrays import to_numpy, tree_map
from recgym.panels import Panel, Series

__all__ = ["Recorder"]

MAX_BARS = 30  # more candidates than this are shown as the best ones and the one chosen
MAX_LINES = 20  # decisions in a text
MAX_STRIPES = 14  # of a map that are named
MAX_NAME = 26  # letters of a candidate's name
BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#b8c4ce"
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00")  # apart for the colour-blind (Okabe & Ito 2008)
SHADE, DARKEST = "black", 0.25  # of a band
LEGEND: dict[str, Any] = {"ncols": 9, "fontsize": 8, "frameon": False, "columnspacing": 1.4, "handlelength": 1.6}
# Fixed, as letting matplotlib find them takes as long as all the rest of a picture.
MARGINS = {"left": 0.07, "right": 0.985, "bottom": 0.125, "top": 0.92, "wspace": 0.23}
NOTHING = "budget gone"  # where no cell of a grid is worth anything
LEVELS = ("line", "area", "map")  # kinds that are known before the first decision


class Page(NamedTuple):
    """The slate that was shown last, from its first place on."""

    names: list[str]
    true: np.ndarray  # [k] expected reward of each, were it shown alone
    clicked: np.ndarray  # [k] bool


class Recorder:
    """Keeps what happened in the first `rows` trials of a runner, which the state does not hold, and draws it."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.paths: list[list[dict[str, float]]] = [[] for _ in range(rows)]  # from the start of the current trial on
        self._offered: list[tuple[tuple[str, ...], np.ndarray]] = []  # names and true rewards of each row's candidates
        self._pages: list[Page | None] = [None] * rows

    def begin(self, runner: Any, mask: np.ndarray | None = None) -> None:
        """Trials have begun in the rows of `mask` [B] (None: in all)."""
        for row, moment in enumerate(self._moments(runner)):
            if mask is None or mask[row]:
                self.paths[row], self._pages[row] = [moment], None
        self._note(runner)

    def record(self, runner: Any, step: Any) -> None:
        """Add a decision; rows that the runner has restarted since begin anew.

        Args:
            runner: which has made it.
            step: what it returned.
        """
        reward, regret = to_numpy(step.reward[: self.rows]), to_numpy(step.info["regret"][: self.rows])
        pages = self._shown(runner)
        for row, moment in enumerate(self._moments(runner)):
            if moment["decision"] == 0:
                self.paths[row], self._pages[row] = [moment], None
            else:
                self._pages[row] = pages[row]
                self.paths[row].append(moment | {"reward": float(reward[row]), "regret": float(regret[row])})
        self._note(runner)

    def _note(self, runner: Any) -> None:
        """Remember what is on offer now: of a slate, the next observation tells places alone."""
        if runner.scenario.action_space.shape:
            head = self._head(runner)
            true = to_numpy(runner.scenario.candidate_rewards(head)[0])
            self._offered = list(zip(runner.scenario.names_of(head), true, strict=True))

    def _shown(self, runner: Any) -> list[Page | None]:
        """The slates of the decision that was made; None where there are none."""
        scenario = runner.scenario
        if not scenario.action_space.shape or "clicked" not in scenario.layout.places or not self._offered:
            return [None] * self.rows
        observation = scenario.observe(self._head(runner).seen)
        chosen, clicked = (to_numpy(scenario.layout.get(observation, name)) for name in ("chosen", "clicked"))
        pages: list[Page | None] = []
        for row, (names, true) in enumerate(self._offered):
            order = np.argsort(-chosen[row], kind="stable")[: int((chosen[row] > 0).sum())]
            pages.append(Page([names[i] for i in order], true[order], clicked[row][order] > 0))
        return pages

    def draw(self, runner: Any, mode: str) -> tuple[Any, ...]:
        """One picture per recorded row: uint8 [H, W, 3] for "rgb_array", str for "ansi"."""
        head = self._head(runner)
        true, estimated = runner.scenario.candidate_rewards(head)
        chosen = to_numpy(runner.scenario.layout.get(runner.scenario.observe(head.seen), "chosen"))
        kind = _Timeline if runner.scenario.panels else _View
        names, pictures = runner.scenario.names_of(head), []
        for row, moment in enumerate(self._moments(runner)):
            if not self.paths[row] or self.paths[row][-1]["decision"] != moment["decision"]:
                self.paths[row], self._pages[row] = (
                    [moment],
                    None,
                )  # nobody has told of this trial: a checkpoint was restored, for one
            estimate = None if estimated is None else to_numpy(estimated[row])
            told = estimate is not None or runner.scenario.candidate_grid is not None  # candidates are still the same
            marked = (chosen[row] > 0) & told
            view = kind(to_numpy(true[row]), estimate, marked, self.paths[row], runner.scenario)
            view.names, view.page = [shorter(names[row][i]) for i in view.rows], self._pages[row]
            pictures.append(view.text() if mode == "ansi" else view.image())
        return tuple(pictures)

    def _head(self, runner: Any) -> Any:
        """The state of the recorded rows."""
        return tree_map(lambda leaf: leaf[: self.rows], runner.state)

    def _moments(self, runner: Any) -> list[dict[str, float]]:
        """Of each recorded row: the number of decisions made, and what the scenario says of the last one."""
        head, scenario = self._head(runner), runner.scenario
        elapsed = to_numpy(scenario.layout.get(scenario.observe(head.seen), "time"))
        columns = {"decision": np.round(elapsed * scenario.horizon), "reward": 0.0 * elapsed, "regret": 0.0 * elapsed}
        if scenario.panels:
            columns |= {name: to_numpy(values) for name, values in scenario.trace(head).items()}
        return [{name: _plain(values[row]) for name, values in columns.items()} for row in range(len(elapsed))]


def _plain(value: Any) -> Any:
    """A number, or a row of them that nobody changes later."""
    return value.copy() if np.ndim(value) else float(value)


class _View:
    """One trial, ready to be drawn: the candidates and the regret."""

    def __init__(
        self,
        true: np.ndarray,
        estimate: np.ndarray | None,
        chosen: np.ndarray,
        path: list[dict[str, float]],
        scenario: Any,
    ) -> None:
        self.cells = true, estimate, chosen  # of all candidates
        rows = np.arange(len(true))
        if len(true) > MAX_BARS:
            best = np.argsort(-true, kind="stable")[:MAX_BARS]
            rows = np.sort(np.union1d(best, np.flatnonzero(chosen)))
        self.rows, self.true, self.chosen = rows, true[rows], chosen[rows]
        self.estimate = None if estimate is None else estimate[rows]
        self.path = {name: np.asarray([moment[name] for moment in path]) for name in path[0]}
        self.scenario = scenario
        self.title = f"{type(scenario).__name__}   decision {path[-1]['decision']:.0f} of {scenario.horizon}"
        self.names: list[str] = []  # of the rows
        self.page: Page | None = None

    def text(self) -> str:
        """A bar per candidate: '#' to the true reward, '|' at the estimate, '>' before the one shown last."""
        width = 40
        scale = width / max(float(self.true.max()), 1e-9)
        lines = [f"{self.title}   regret {self.path['regret'].sum():.2f}"]
        for i, row in enumerate(self.rows):
            bar = ("#" * round(self.true[i] * scale)).ljust(width + 1)
            figures = f"true {self.true[i]:.3f}"
            if self.estimate is not None:
                at = min(round(float(self.estimate[i]) * scale), width)
                bar = f"{bar[:at]}|{bar[at + 1 :]}"
                figures += f"  estimate {self.estimate[i]:.3f}"
            mark = ">" if self.chosen[i] else " "
            best = "  best" if self.true[i] == self.true.max() else ""
            lines.append(f"{mark}{row:4d} {bar} {figures}{best}")
        return "\n".join(lines)

    def image(self) -> np.ndarray:
        """The bars beside the regret curve, uint8 [400, 900, 3]."""
        canvas = _canvas(9, 4)
        bars, curve = canvas.figure.subplots(1, 2, width_ratios=(2, 1), gridspec_kw=MARGINS)
        places = np.arange(len(self.rows))
        colors = [ORANGE if chosen else GREY for chosen in self.chosen]
        bars.bar(places, self.true, color=colors, label="true (orange: shown last)" if self.chosen.any() else "true")
        if self.estimate is not None:
            bars.plot(places, self.estimate, "_", color=BLUE, markersize=12, markeredgewidth=3, label="moving average")
        bars.plot(places[np.argmax(self.true)], self.true.max(), "v", color="black", label="best")
        bars.set_xticks(places, self.names, fontsize=8)
        bars.set(xlabel="candidate", ylabel="expected reward", title=self.title)
        top = max(float(self.true.max()), 0.0 if self.estimate is None else float(self.estimate.max()))
        bars.set_ylim(0, 1.35 * max(top, 1e-9))
        bars.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)
        regret = np.cumsum(self.path["regret"])
        curve.plot(self.path["decision"], regret, color=BLUE)
        curve.set(xlabel="decision", ylabel="regret so far (reward)", title=f"regret {regret[-1]:.2f}")
        curve.set_ylim(bottom=0)
        return _pixels(canvas)


class _Timeline(_View):
    """One trial, ready to be drawn: what the scenario traces over the decisions, the reward, and the candidates."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        return (*self.scenario.panels, Panel("reward so far", (Series("total", "reward so far", "line"),)))

    def text(self) -> str:
        """A line per decision, the last one marked by '>'; below it the candidate that is the best now."""
        path = self.path | {"total": np.cumsum(self.path["reward"])}
        names = ["decision", *(series.name for panel in self.scenario.panels for series in panel.series)]
        kinds = {series.name: series.kind for panel in self.panels for series in panel.series}
        columns = []
        for name in [*names, "reward", "total"]:
            values = path[name][-MAX_LINES:]
            if values.ndim > 1:
                values = values.max(axis=1)  # of a map
            cells = _figures(values)
            if path["decision"][-len(values)] == 0 and kinds.get(name, "line" if name == "decision" else "") != "line":
                cells[0] = cells[0] if kinds.get(name) in LEVELS else ""
            width = max(map(len, (*cells, name)))
            columns.append([name.rjust(width), *(cell.rjust(width) for cell in cells)])
        lines = ["  ".join(row) for row in zip(*columns, strict=True)]
        marks = [" "] * (len(lines) - 1) + [">" if path["decision"][-1] else " "]
        best = int(np.argmax(self.true))
        title = f"{self.title}   reward so far {path['total'][-1]:.2f}"
        last = f"best now: {self.names[best]}, expected reward {self.true[best]:.3f}"
        if self.scenario.candidate_grid is not None and not self.true.any():
            last = NOTHING
        return "\n".join([title, *(mark + line for mark, line in zip(marks, lines, strict=True)), *self._page(), last])

    def _page(self) -> list[str]:
        """A line per place of the page that was shown last."""
        if self.page is None:
            return []
        if not self.page.names:
            return ["nobody there to be shown a page"]
        names = [shorter(name) for name in self.page.names]
        rows = zip(names, self.page.true, self.page.clicked, strict=True)
        width = max(map(len, names))
        return ["shown last, with the expected reward of each alone:"] + [
            f"  {place}  {name.ljust(width)}  {true:.3f}{'  clicked' if clicked else ''}"
            for place, (name, true, clicked) in enumerate(rows, start=1)
        ]

    def image(self) -> np.ndarray:
        """Panels over the decisions beside the candidates, uint8 [180 + 140 n, 1100, 3] for n of them."""
        height = 1.8 + 1.4 * len(self.panels)
        canvas = _canvas(11, height)
        figure, path = canvas.figure, self.path | {"total": np.cumsum(self.path["reward"])}
        edges = {"left": 0.075, "right": 0.985, "bottom": 0.5 / height, "top": 1 - 0.8 / height}
        ratios = {"width_ratios": (3, 1), "height_ratios": [1.6] + [1.0] * (len(self.panels) - 1)}
        grid = figure.add_gridspec(len(self.panels), 2, hspace=0.32, wspace=0.36, **ratios, **edges)
        for place, panel in enumerate(self.panels):
            axes = figure.add_subplot(grid[place, 0])
            _draw_panel(axes, panel, path)
            axes.set_xlim(0, self.scenario.horizon)
            if place < len(self.panels) - 1:
                axes.set_xticks([])
        axes.set_xlabel("decisions made")
        if self.scenario.candidate_grid is not None:
            maps = grid[:, 1].subgridspec(1 if self.cells[1] is None else 2, 1, hspace=0.25)
            for place, (values, title) in enumerate(zip(self.cells, ("expected now", "predicted"), strict=False)):
                if values is not None:
                    self._draw_grid(figure.add_subplot(maps[place]), values, title)
        elif self.page is None:
            self._draw_candidates(figure.add_subplot(grid[:, 1]))
        else:
            shown, candidates = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1:, 1])
            self._draw_page(shown)
            self._draw_candidates(candidates)
            most = max(shown.get_xlim()[1], candidates.get_xlim()[1]) if self.page.names else candidates.get_xlim()[1]
            for axes in (shown, candidates):
                axes.set_xlim(candidates.get_xlim()[0], most)  # bars are of one scale
        figure.suptitle(f"{self.title}   reward so far {path['total'][-1]:.2f}", y=1 - 0.1 / height, va="top")
        return _pixels(canvas)

    def _draw_page(self, axes: Any) -> None:
        assert self.page is not None
        places = np.arange(len(self.page.names))
        colors = [LINES[1] if clicked else GREY for clicked in self.page.clicked]
        axes.barh(places, self.page.true, color=colors)
        axes.set_yticks(places, [shorter(name) for name in self.page.names], fontsize=7)
        axes.set_ylim(max(len(places), 1) - 0.4, -0.6)
        axes.set_xticks([])
        axes.set_title("shown last (orange: clicked)" if len(places) else "nobody there", fontsize=8)

    def _draw_grid(self, axes: Any, values: np.ndarray, title: str) -> None:
        """A cell for each candidate, the darker the higher; a frame around the one chosen last, a dot in the best."""
        across = self.scenario.candidate_grid
        shape = tuple(len(names) for names in across)
        high = max(float(values.max()), 1e-9)
        axes.pcolormesh(values.reshape(shape), cmap="Blues", vmin=0.0, vmax=high)
        for set_ticks, names in ((axes.set_yticks, across[0]), (axes.set_xticks, across[1])):
            shown = np.arange(0, len(names), 1 + len(names) // MAX_STRIPES)
            set_ticks(shown + 0.5, [shorter(names[i]) for i in shown], fontsize=7)
        if values.any():
            row, column = np.unravel_index(int(values.argmax()), shape)
            axes.plot(column + 0.5, row + 0.5, "o", color=LINES[4], markersize=4)
        for place in np.flatnonzero(self.cells[2]):
            row, column = np.unravel_index(place, shape)
            axes.plot(column + np.array([0, 1, 1, 0, 0]), row + np.array([0, 0, 1, 1, 0]), color=LINES[1], linewidth=2)
        axes.set_ylim(shape[0], 0)
        shades = f"white 0, dark {high:.2g}" if values.any() else "all 0"
        axes.set_title(f"{title}: {shades}", fontsize=8, pad=3)
        framed = ", frame: chosen last" if self.cells[2].any() else ""
        axes.set_xlabel(("dot: highest" if values.any() else NOTHING) + framed, fontsize=8)

    def _draw_candidates(self, axes: Any) -> None:
        places = np.arange(len(self.rows))
        axes.barh(places, self.true, color=GREY, label="expected now")
        if self.chosen.any() and self.page is None:  # a page has a picture of its own, and its candidates are gone
            axes.barh(places[self.chosen], self.true[self.chosen], color=LINES[1], label="chosen last")
        if self.estimate is not None:
            axes.plot(self.estimate, places, "|", color=LINES[0], markersize=9, markeredgewidth=2.5, label="predicted")
        best = np.argmax(self.true)
        axes.plot(self.true[best], places[best], "<", color="black", markersize=5, label="best")
        axes.set_yticks(places, self.names, fontsize=7)
        axes.set_ylim(len(places) - 0.4, -0.6)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xlabel("expected reward of a decision")
        axes.tick_params(axis="x", labelsize=8)
        axes.legend(loc="lower right", bbox_to_anchor=(1.05, 1.0), **LEGEND | {"ncols": 2})


def shorter(name: str) -> str:
    """A name that fits beside a bar."""
    return name if len(name) <= MAX_NAME else name[: MAX_NAME - 3] + "..."


def _draw_panel(axes: Any, panel: Panel, path: dict[str, np.ndarray]) -> None:
    """Decision t takes the stretch from t - 1 to t; levels are known at its ends."""
    moments = path["decision"]
    if panel.series[0].kind == "map":
        _draw_map(axes, panel, path[panel.series[0].name], moments)
        return
    colors = iter(LINES * len(panel.series))
    reach = [0.0] if any(series.kind in ("area", "bars") for series in panel.series) else []
    ground: Any = None  # of bars: what others hide is left out, or its colour would shine through at their edges
    for place, series in enumerate(panel.series):
        values = path[series.name]
        look = {"label": series.label, "linewidth": 1.3 if place else 2.2, "zorder": 3 - place / len(panel.series)}
        if series.kind == "band":
            axes.fill_between([], [], color=SHADE, alpha=DARKEST, linewidth=0, label=series.label)
            shares = np.round(values[1:], 1)
            for share in np.unique(shares[shares > 0]):
                where = {"transform": axes.get_xaxis_transform(), "alpha": DARKEST * min(share, 1.0), "linewidth": 0}
                axes.stairs(1.0 * (shares == share), moments, fill=True, color=SHADE, **where)
            continue
        if series.kind in LEVELS:
            color = next(colors)
            axes.plot(moments, values, "o-" if len(moments) == 1 else "-", markersize=4, color=color, **look)
            if series.kind == "area":
                axes.fill_between(moments, values, color=color, alpha=0.2, linewidth=0)
        elif series.kind == "step":
            values = values[1:]
            axes.stairs(values, moments, baseline=None, color=next(colors), **look)
        else:
            values = values[1:]
            tops = values if ground is None else np.maximum(values, ground)
            bars = {**look, "linewidth": 0, "fill": True, "baseline": 0.0 if ground is None else ground}
            axes.stairs(tops, moments, color=next(colors), **bars)
            ground = tops if len(tops) else None
        reach += [float(values.min()), float(values.max())] if len(values) else []
    low, high = (min(reach), max(reach)) if reach else (0.0, 0.0)
    if high <= low:  # little to be seen yet
        low, high = low - 0.1 * abs(low), high + (0.1 * abs(high) or 1.0)
    axes.set_ylim(low - 0.06 * (high - low) * (low != 0), high + 0.08 * (high - low))
    axes.yaxis.set_major_formatter(_ticks().EngFormatter(sep="") if high >= 1e4 else lambda value, _: f"{value:.5g}")
    axes.yaxis.set_major_locator(_ticks().MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2))
    axes.set_ylabel(panel.title, fontsize=9)
    axes.yaxis.set_label_coords(-0.075, 0.5)
    axes.tick_params(labelsize=8)
    if len(panel.series) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.97), **LEGEND)


def _draw_map(axes: Any, panel: Panel, values: np.ndarray, moments: np.ndarray) -> None:
    """A stripe for each row of a map, the darker the higher; its range stands in the label."""
    names = panel.series[0].rows
    high = max(float(values.max()), 1e-9)
    edges = np.append(moments - 0.5, moments[-1] + 0.5)
    axes.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, values.T, cmap="Blues", vmin=0.0, vmax=high)
    shown = np.arange(0, len(names), 1 + len(names) // MAX_STRIPES)
    axes.set_yticks(shown, [shorter(names[i]) for i in shown])
    axes.tick_params(labelsize=6)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(f"{panel.title}, by {panel.series[0].label}: white 0, dark {high:.2g}", fontsize=8, pad=3)


def _ticks() -> Any:
    from matplotlib import ticker

    return ticker


def _figures(values: np.ndarray) -> list[str]:
    """Numbers of a column with the same decimals: at least two and three figures; whole and large ones without."""
    largest = float(np.abs(values).max())
    if largest >= 1e4 or np.all(values == np.round(values)):
        return [f"{value:.0f}" for value in values]
    digits = min(max(2 - math.floor(math.log10(largest)), 2), 9)
    return [f"{value:.{digits}f}" for value in values]


def _canvas(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("render_mode='rgb_array' draws with matplotlib: pip install 'recgym[plot]'") from error
    return FigureCanvasAgg(Figure(figsize=(width, height), dpi=100))


def _pixels(canvas: Any) -> np.ndarray:
    """uint8 [H, W, 3]."""
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
