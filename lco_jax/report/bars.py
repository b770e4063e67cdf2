"""Bars of several models in several columns of a table: one panel a column, one bar a model."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lco_jax.report.figures import COLOURS, STYLE

KINDS = {
    "ours": ("after", 1.0, "measured here, our models"),
    "comparator": ("before", 1.0, "measured here, models that mteb runs"),
    "mteb": ("muted", 0.85, "published, current mteb"),
    "paper": ("muted", 0.4, "published, the paper"),
}
"""Of bars: colour, opacity and what they are."""
_PANELS_IN_A_ROW = 4
_BAR = 0.19
"""Inches a bar."""


@dataclass(frozen=True)
class Bar:
    """A model: a bar in every panel that it has a value for."""

    label: str
    kind: str
    """One of `KINDS`."""
    values: Mapping[str, float]
    marks: Mapping[str, str] = field(default_factory=dict)
    """By panel what stands behind the number."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By panel, where they are known."""


def draw_bars(
    title: str,
    panels: Mapping[str, str],
    bars: Sequence[Bar],
    *,
    unit: str = "%",
    chance: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Figure:
    """A figure of all panels.

    Args:
        panels: titles, by name of the values.
        chance: by panel, what a model gets that learned nothing.
        notes: below the figure.
    """
    across = min(_PANELS_IN_A_ROW, len(panels))
    down = -(-len(panels) // across)
    kinds = [kind for kind in KINDS if any(bar.kind == kind for bar in bars)]
    wrapped = [line for note in notes for line in textwrap.wrap(note, 36 * (across + 1))]
    height = down * (0.75 + _BAR * max(len(bars), 4)) + 0.9 + 0.17 * len(wrapped)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.4 + 2.9 * across, height), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12)
        grid = figure.subplots(down, across, squeeze=False)
        for axes, (name, panel) in zip(grid.ravel(), panels.items(), strict=False):
            _draw_panel(axes, name, f"{panel} ({unit})", bars, chance or {})
        for axes in grid.ravel()[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[:, 1:].ravel():
            axes.set_yticklabels([])
        handles = [
            matplotlib.patches.Patch(color=COLOURS[colour], alpha=alpha, label=label)
            for colour, alpha, label in (KINDS[kind] for kind in kinds)
        ]
        if chance:
            line = {"color": COLOURS["ink"], "linestyle": ":", "linewidth": 1.2}
            handles.append(matplotlib.lines.Line2D([], [], label="chance", **line))
        if any(bar.intervals for bar in bars):
            line = {"color": COLOURS["ink"], "linewidth": 1.1}
            label = "95 % interval over queries"
            handles.append(matplotlib.lines.Line2D([], [], label=label, **line))
        figure.legend(handles=handles, loc="outside upper right", ncols=len(handles), fontsize=9)
        if wrapped:
            text = "\n".join(wrapped)
            figure.supxlabel(text, x=0.01, ha="left", fontsize=8, color=COLOURS["muted"])
    return figure


def _draw_panel(
    axes: Axes, name: str, title: str, bars: Sequence[Bar], chance: Mapping[str, float]
) -> None:
    places = np.arange(len(bars))[::-1]
    present = [(place, bar) for place, bar in zip(places, bars, strict=True) if name in bar.values]
    ends = [end for _, bar in present for end in bar.intervals.get(name, (bar.values[name],))]
    for place, bar in present:
        colour, alpha, _ = KINDS[bar.kind]
        value = bar.values[name]
        axes.barh(place, value, height=0.72, color=COLOURS[colour], alpha=alpha)
        reach = value
        if name in bar.intervals:
            low, high = bar.intervals[name]
            reach = high
            axes.plot([low, high], [place, place], color=COLOURS["ink"], linewidth=1.1)
        text = f" {value:.1f}{bar.marks.get(name, '')}"
        axes.text(max(reach, 0), place, text, va="center", fontsize=7.5, color=COLOURS["ink"])
    if name in chance:
        axes.axvline(chance[name], color=COLOURS["ink"], linestyle=":", linewidth=1.2)
    axes.set_title(title, fontsize=9.5)
    axes.set_yticks(places, [bar.label for bar in bars], fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylim(-0.6, len(bars) - 0.4)
    # The numbers stand behind the bars.
    axes.set_xlim(min([0.0, *ends]), 1.25 * max([1e-9, *ends]))
    axes.grid(visible=False, axis="y")
