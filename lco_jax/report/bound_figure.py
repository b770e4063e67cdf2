"""The figure of the bound: a line for each run, with its loss, its bounds, and where they begin to
say something."""

from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from lco_jax.report.figures import COLOURS, STYLE
from lco_jax.report.scaling_figure import save

_MARKS = (
    ("measured_loss", "D", "ink", "held-out loss"),
    ("paper", "o", "before", "bound as printed (for losses in [0, 1])"),
    ("valid", "s", "after", "valid bound"),
)


def draw(rows: list[dict[str, Any]], folder: epath.Path) -> None:
    """Write `bound.png` and `bound.svg` of what `bound_runs.compare` says of each run."""
    places = np.arange(len(rows))[::-1]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 2.4 + 0.32 * len(rows)), layout="constrained")
        axes = figure.subplots()
        covered = np.array([not row["invalid"] for row in rows])
        for name, marker, colour, label in _MARKS:
            values = np.array([row[name] for row in rows])
            style = {"color": COLOURS[colour], "markersize": 6}
            axes.plot([], [], marker, label=label, **style)
            # A measured loss is one whatever the prior saw.
            filled = covered | (name == "measured_loss")
            axes.plot(values[filled], places[filled], marker, **style)
            axes.plot(values[~filled], places[~filled], marker, fillstyle="none", **style)
        if not covered.all():
            label = "hollow: no bound, the prior depends on the training data"
            axes.plot([], [], "s", fillstyle="none", color=COLOURS["muted"], label=label)
        log_n = np.array([row["log_n"] for row in rows])
        axes.plot(
            log_n, places, "|", color=COLOURS["muted"], markersize=16, label="log N: knows nothing"
        )
        axes.set_yticks(places, [row["name"] for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        if min(row[name] for row in rows for name, *_ in _MARKS) > 0:
            axes.set_xscale("log")  # wide bounds would press all others to the axis
        axes.set_xlabel("nats")
        axes.set_title("Theorem 1 beside the held-out InfoNCE loss")
        figure.legend(loc="outside lower left", fontsize=9, ncols=2)
        save(figure, folder, "bound")
