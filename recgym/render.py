"""Pictures of a trial: true and estimated rewards of the candidates, what was shown, regret so far."""

from __future__ import annotations

from typing import Any

import numpy as np

from recgym.core import to_numpy

__all__ = ["Recorder"]

MOST_BARS = 30  # more candidates than this are shown as the best ones and the one chosen
BLUE, ORANGE, GREY = "#1f77b4", "#ff7f0e", "#b8c4ce"


class Recorder:
    """Keeps the regret of the first `rows` trials of a runner, which the state does not hold, and draws them."""

    def __init__(self, rows: int) -> None:
        self.regret: list[list[float]] = [[] for _ in range(rows)]  # per decision of the current trial

    def clear(self, mask: np.ndarray | None = None) -> None:
        """Forget the trials of the rows in `mask` [B] (None: of all)."""
        for row in range(len(self.regret)):
            if mask is None or mask[row]:
                self.regret[row] = []

    def record(self, regret: np.ndarray, ended: np.ndarray | None = None) -> None:
        """Add a decision: `regret` [B]; rows in `ended` [B] have begun a new trial since."""
        for row, kept in enumerate(self.regret):
            kept.append(float(regret[row]))
        if ended is not None and ended.any():
            self.clear(ended)

    def draw(self, runner: Any, mode: str) -> tuple[Any, ...]:
        """One picture per recorded row: uint8 [H, W, 3] for "rgb_array", str for "ansi"."""
        true, estimated = runner.scenario.candidate_rewards(runner.state)
        chosen = to_numpy(runner.scenario.layout.get(runner.observation(), "chosen"))
        pictures = []
        for row, regret in enumerate(self.regret):
            estimate = None if estimated is None else to_numpy(estimated[row])
            marked = (chosen[row] > 0) & (estimate is not None)
            view = _View(to_numpy(true[row]), estimate, marked, np.asarray(regret), runner.scenario)
            pictures.append(view.text() if mode == "ansi" else view.image())
        return tuple(pictures)


class _View:
    """One trial, ready to be drawn."""

    def __init__(
        self, true: np.ndarray, estimate: np.ndarray | None, chosen: np.ndarray, regret: np.ndarray, scenario: Any
    ) -> None:
        rows = np.arange(len(true))
        if len(true) > MOST_BARS:
            best = np.argsort(-true, kind="stable")[:MOST_BARS]
            rows = np.sort(np.union1d(best, np.flatnonzero(chosen)))
        self.rows, self.true, self.chosen = rows, true[rows], chosen[rows]
        self.estimate = None if estimate is None else estimate[rows]
        self.regret = regret
        self.title = f"{type(scenario).__name__}   decision {len(regret)} of {scenario.horizon}"

    def text(self) -> str:
        """A bar per candidate: '#' to the true reward, '|' at the estimate, '>' before the one shown last."""
        width = 40
        scale = width / max(float(self.true.max()), 1e-9)
        lines = [f"{self.title}   regret {self.regret.sum():.2f}"]
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
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("render_mode='rgb_array' draws with matplotlib: pip install 'recgym[plot]'") from error
        figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        bars, curve = figure.subplots(1, 2, width_ratios=(2, 1))
        places = np.arange(len(self.rows))
        colors = [ORANGE if chosen else GREY for chosen in self.chosen]
        bars.bar(places, self.true, color=colors, label="true (orange: shown last)" if self.chosen.any() else "true")
        if self.estimate is not None:
            bars.plot(places, self.estimate, "_", color=BLUE, markersize=12, markeredgewidth=3, label="moving average")
        bars.plot(places[np.argmax(self.true)], self.true.max(), "v", color="black", label="best")
        bars.set_xticks(places, [str(row) for row in self.rows], fontsize=8)
        bars.set(xlabel="candidate", ylabel="expected reward", title=self.title)
        top = max(float(self.true.max()), 0.0 if self.estimate is None else float(self.estimate.max()))
        bars.set_ylim(0, 1.35 * max(top, 1e-9))
        bars.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)
        curve.plot(np.arange(len(self.regret) + 1), np.concatenate([[0.0], np.cumsum(self.regret)]), color=BLUE)
        curve.set(xlabel="decision", ylabel="regret so far (reward)", title=f"regret {self.regret.sum():.2f}")
        curve.set_ylim(bottom=0)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
