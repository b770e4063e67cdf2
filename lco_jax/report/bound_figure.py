"""The figure of the bound: what it promises against what was measured."""

from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from lco_jax.report.figures import COLOURS, STYLE
from lco_jax.report.scaling_figure import save


def draw(rows: list[dict[str, Any]], folder: epath.Path) -> None:
    """Write `bound.png` and `bound.svg` of what `bound.compare` says of each run."""
    measured = np.array([row["measured_loss"] for row in rows])
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 5), layout="constrained")
        axes = figure.subplots()
        for name, marker, label in (("paper", "o", "as printed"), ("valid", "s", "valid constant")):
            values = [row[name] for row in rows]
            colour = COLOURS["before" if name == "paper" else "after"]
            axes.plot(measured, values, marker, color=colour, label=label)
        for row in rows:
            place = {"xytext": (5, 5), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(row["name"], (row["measured_loss"], row["valid"]), **place)
        log_n = max(row["log_n"] for row in rows)
        ends = np.array([min(0, measured.min()), max(log_n, measured.max()) * 1.05])
        axes.plot(ends, ends, color=COLOURS["muted"], linewidth=1, label="bound = loss")
        axes.axhline(
            log_n, color=COLOURS["muted"], linewidth=1, linestyle=":", label="log N: knows nothing"
        )
        bounds = [row[name] for row in rows for name in ("paper", "valid")]
        if min(bounds) > 0 and max(bounds) > 20 * log_n:
            axes.set_yscale("log")  # wide bounds would press all others to the axis
        axes.set_xlabel("measured loss (nats)")
        axes.set_ylabel("bound (nats)")
        axes.set_title("Bound against held-out InfoNCE")
        axes.legend(fontsize=9)
        save(figure, folder, "bound")
