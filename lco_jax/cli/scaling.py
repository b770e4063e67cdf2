"""The command line of `launch/scaling.py`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from lco_jax.cli.exits import DONE, program

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments:
    """Fit the Generation-Representation Scaling Law, and compare runs with the bound."""

    output: str
    """Folder of `scaling.json`, `bound.json` and the figures."""
    published: bool = False
    """Fit the points of the paper's figure."""
    points: str | None = None
    """Fit the points of a file: CSV (panel, name, x, y) or JSON."""
    bounds: str | None = None
    """JSON Lines file of runs: the terms of the bound and the loss that was measured."""


@program
def main() -> int:
    """Parse, fit, write the figures and the numbers."""
    arguments = tyro.cli(_Arguments)
    if arguments.published and arguments.points:
        raise ValueError("--published and --points exclude each other; give one")
    if not (arguments.published or arguments.points or arguments.bounds):
        raise ValueError("nothing to do: give --published, --points FILE or --bounds FILE")
    output = Path(arguments.output)
    if arguments.published or arguments.points:
        _fit(arguments.points, output)
    if arguments.bounds:
        _bound(arguments.bounds, output)
    return DONE


def _fit(points: str | None, output: Path) -> None:
    from etils import epath

    from lco_jax.analysis import scaling, scaling_figure

    panels = scaling.read_points(points) if points else scaling.published_panels()
    fits = {name: scaling.fit(panel.points) for name, panel in panels.items()}
    summaries = {name: scaling.summary(panel, fits[name]) for name, panel in panels.items()}
    output.mkdir(parents=True, exist_ok=True)
    content = {"points": points or "published", "panels": summaries}
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "scaling.json").write_text(text + "\n")
    scaling_figure.draw(panels, fits, epath.Path(output))
    table = Table("panel", "points", "slope", "95 % (bootstrap)", "95 % (t)", "r", "p")
    for name, fit in fits.items():
        exact = fit.num_points == 2
        table.add_row(
            name,
            str(fit.num_points),
            f"{fit.slope:.3f}",
            "-" if exact else f"{fit.low:.3f} to {fit.high:.3f}",
            "-" if exact else f"{fit.t_low:.3f} to {fit.t_high:.3f}",
            f"{fit.pearson_r:.3f}",
            "-" if exact else f"{fit.p_value:.3f}",
        )
    Console().print(table)
    log.info("%s has scaling.json and the figure", output)


def _bound(path: str, output: Path) -> None:
    from etils import epath

    from lco_jax.analysis import bound, bound_figure

    runs = bound.read_runs(path)
    output.mkdir(parents=True, exist_ok=True)
    rows = [bound.compare(run) for run in runs]
    text = json.dumps({"runs": rows}, indent=2, ensure_ascii=False, allow_nan=False)
    (output / "bound.json").write_text(text + "\n")
    bound_figure.draw(rows, epath.Path(output))
    table = Table(
        "run", "measured", "paper's bound", "valid bound", "log N", "warm part", "clipped"
    )
    for row in rows:
        numbers = (row[name] for name in ("measured_loss", "paper", "valid", "log_n", "warm_start"))
        clipped = "yes" if row["clipped"] else "no"
        table.add_row(row["name"], *(f"{number:.3f}" for number in numbers), clipped)
    Console().print(table)
    broken = [row["name"] for row in rows if row["valid"] < row["measured_loss"]]
    if broken:
        log.warning("the measured loss is above the valid bound in %s", ", ".join(broken))
