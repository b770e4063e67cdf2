"""The figure of the scaling law: one panel per modality, with lines, bands and names."""

import io
import textwrap

import matplotlib
import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lco_jax.analysis.scaling import Fit, Panel
from lco_jax.report.figures import COLOURS, STYLE
from lco_jax.runtime.disks import replace_bytes


def draw(panels: dict[str, Panel], fits: dict[str, Fit], folder: epath.Path) -> None:
    """Write `scaling.png` and `scaling.svg`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5 * len(panels), 4.6), layout="constrained")
        grid = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (name, panel) in zip(grid, panels.items(), strict=True):
            _draw_panel(axes, panel, fits[name])
        save(figure, folder, "scaling")


def save(figure: Figure, folder: epath.Path, name: str) -> None:
    """Write a figure as `NAME.png` and `NAME.svg`."""
    for kind in ("png", "svg"):
        metadata = {"Date": None} if kind == "svg" else None
        file = io.BytesIO()
        figure.savefig(file, format=kind, dpi=150, facecolor="white", metadata=metadata)
        replace_bytes(folder / f"{name}.{kind}", file.getvalue())


def _draw_panel(axes: Axes, panel: Panel, fit: Fit) -> None:
    x, y = np.array([(point.x, point.y) for point in panel.points]).T
    margin = 0.08 * np.ptp(x)
    grid = np.linspace(x.min() - margin, x.max() + margin, 100)
    if fit.num_points > 2:
        axes.fill_between(grid, *fit.band(grid), color=COLOURS["after"], alpha=0.15, linewidth=0)
    axes.plot(grid, fit.slope * grid + fit.intercept, color=COLOURS["after"], linewidth=1.6)
    axes.plot(x, y, "o", color=COLOURS["before"], markersize=6)
    for point in panel.points:
        axes.annotate(
            point.name,
            (point.x, point.y),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    interval = f"95 % {fit.low:.2f} to {fit.high:.2f}" if fit.num_points > 2 else "two points"
    axes.set_title(
        f"{panel.title}\nslope {fit.slope:.3f} ({interval}), r = {fit.pearson_r:.2f}", fontsize=10
    )
    axes.set_xlabel(textwrap.fill(panel.x_label, 48))
    axes.set_ylabel(textwrap.fill(panel.y_label, 48))
    # The band of a few points may reach far beyond them.
    space = max(np.ptp(y), 1e-9)
    axes.set_ylim(y.min() - 0.6 * space, y.max() + 0.6 * space)
