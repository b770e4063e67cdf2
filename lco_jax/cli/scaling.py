"""The command line of `launch/scaling.py`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from lco_jax.cli.compilations import Compilations
from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.cli.show import show
from lco_jax.runtime.disks import replace_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments(Compilations):
    """Fit the Generation-Representation Scaling Law, and compare runs with the bound."""

    output: str
    """Folder of `scaling.json`, `bound.json` and the figures."""
    published: bool = False
    """Fit the points of the paper's figure."""
    points: str | None = None
    """Fit the points of a file: CSV (panel, name, x, y) or JSON."""
    bounds: str | None = None
    """JSON Lines file of runs: the terms of the bound and the loss that was measured."""
    grid: Path | None = None
    """Python file with `get_grid()`: train and measure its cells and arms in the output folder,
    then fit and compare them. What is there already is not run again."""
    arms: bool = True
    """With --grid: also its ablation arms."""


_EXAMPLES = (
    "--published --output scaling",
    "--grid configs/grids/small_vl.py --output scaling",
)


@program
def main() -> int:
    """Parse, fit, write the figures and the numbers."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    if arguments.published and arguments.points:
        raise ValueError("--published and --points exclude each other; give one")
    fitted = arguments.published or arguments.points
    if not (fitted or arguments.bounds or arguments.grid):
        raise ValueError(
            "nothing to do: give --published, --points FILE, --bounds FILE or --grid FILE"
        )
    if arguments.grid and (fitted or arguments.bounds):
        raise ValueError("--grid fits its own points and bounds; give it alone")
    output = Path(arguments.output)
    if arguments.grid:
        from lco_jax.runtime.locks import only_writer

        with only_writer(output):
            _grid(arguments, output)
    if fitted:
        from lco_jax.analysis import scaling

        points = arguments.points
        panels = scaling.read_points(points) if points else scaling.published_panels()
        _fit(panels, points or "published", output)
    if arguments.published:
        _bound_limits(output)
    if arguments.bounds:
        from lco_jax.analysis import bound_runs

        _bound(bound_runs.read_runs(arguments.bounds), output)
    return DONE


def _grid(arguments: _Arguments, output: Path) -> None:
    from lco_jax.cli.configs import load_file
    from lco_jax.lab import grid, grid_report
    from lco_jax.lab.grid_config import ScalingGrid

    arguments.keep_compilations()
    found = load_file(arguments.grid, "get_grid", (ScalingGrid,))
    records = grid.run_cells(found, output)
    arms = grid.run_arms(found, output) if arguments.arms else []
    panels = grid_report.panels(records)
    fits = _fit(panels, str(arguments.grid), output)
    bounds = _bound(grid_report.bound_runs(records, found), output)
    grid_report.write_report(output, records, fits, bounds, arms)
    log.info("%s has grid.md and grid.json", output)


def _fit(panels: dict[str, Any], origin: str, output: Path) -> dict[str, Any]:
    from etils import epath

    from lco_jax.analysis import scaling
    from lco_jax.report import scaling_figure

    fits = {name: scaling.fit(panel.points) for name, panel in panels.items()}
    summaries = {name: scaling.summary(panel, fits[name]) for name, panel in panels.items()}
    output.mkdir(parents=True, exist_ok=True)
    content = {"points": origin, "panels": summaries}
    _write_json(output / "scaling.json", content)
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
    show(table)
    log.info("%s has scaling.json and the figure", output)
    return fits


def _bound(runs: list[Any], output: Path) -> list[dict[str, Any]]:
    from etils import epath

    from lco_jax.analysis import bound_runs
    from lco_jax.report import bound_figure

    output.mkdir(parents=True, exist_ok=True)
    rows = [bound_runs.compare(run) for run in runs]
    _write_json(output / "bound.json", {"runs": rows})
    bound_figure.draw(rows, epath.Path(output))
    table = Table("run", "measured", "as printed", "valid", "log N", "clipped", "prior")
    said = Table("run", "least value", "samples needed", "KL", "KL below")
    said.title = "What the valid bound could say"
    for row in rows:
        numbers = (row[name] for name in ("measured_loss", "paper", "valid", "log_n"))
        flags = ("yes" if row["clipped"] else "no", "dependent" if row["invalid"] else "")
        table.add_row(row["name"], *(f"{number:.3f}" for number in numbers), *flags)
        least, samples, kl = _limits(row["limits"])
        said.add_row(row["name"], least, samples, f"{row['kl']:,.0f}", kl)
    show(table, said)
    for reason in dict.fromkeys(reason for row in rows for reason in row["invalid"]):
        names = ", ".join(row["name"] for row in rows if reason in row["invalid"])
        log.warning("no bound in the sense of the theorem, as %s: %s", reason, names)
    broken = [row["name"] for row in rows if row["valid"] < row["measured_loss"]]
    if broken:
        log.warning("the measured loss is above the valid bound in %s", ", ".join(broken))
    return rows


def _bound_limits(output: Path) -> None:
    """What the bound could say at the sizes of the paper's runs."""
    from lco_jax.analysis.bound_limits import paper_sizes

    rows = paper_sizes()
    _write_json(output / "bound_limits.json", {"sizes": rows})
    table = Table("run", "N", "n", "log N", "range", "least value", "samples needed", "KL below")
    table.title = "Theorem 1 at best: a training loss of 0, and a prior that knows log N"
    for row in rows:
        table.add_row(
            row["name"],
            f"{row['num_candidates']:,}",
            f"{row['num_samples']:,}",
            f"{row['log_n']:.2f}",
            f"{row['loss_range']:.1f}",
            *_limits(row),
        )
    show(table)


def _limits(found: dict[str, Any]) -> list[str]:
    """The least value of the bound; the samples and the KL with which it says anything."""
    samples, kl = found["needed_samples"], found["affordable_kl"]
    return [
        f"{found['least']:.3f}",
        "no number" if samples is None else f"{samples:,}",
        "none" if kl is None else f"{kl:,.1f}",
    ]


def _write_json(file: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    replace_text(file, text + "\n")
