"""The command line of `launch/compare.py`."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lco_jax.cli.exits import DONE, program
from lco_jax.cli.parse import parse
from lco_jax.cli.show import show
from lco_jax.runtime.disks import replace_text

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Arguments:
    """Show the paper's tables (MIEB-Lite, the training strategies on MIEB-Sub18, audio and video
    retrieval), and put results of your own beside them."""

    results: tuple[Path, ...] = ()
    """Folders that `lco evaluate --output` wrote, of our models and of those that mteb runs."""
    output: Path | None = None
    """Folder of the figures, as bars, and of `compare.json` (default: tables only)."""


_EXAMPLES = ("", "--results evaluations/compare --output figures")


@program
def main() -> int:
    """Parse, print the tables, draw the figures."""
    arguments = parse(_Arguments, examples=_EXAMPLES)
    from lco_jax.evaluate import published_tables, results

    found = results.read_all(arguments.results)
    rows = [row for row in (each.row() for each in found) if row.columns]
    if found:
        tasks = sorted({task for each in found for task in each.scores})
        show(results.tasks_table(found, tasks))
    show(published_tables.side_by_side(rows), names=2)
    show(published_tables.strategies_table(), names=2)
    show(published_tables.released_table())
    if arguments.output is not None:
        _draw(found, rows, arguments.output)
    return DONE


def _draw(found: list[Any], rows: list[Any], output: Path) -> None:
    from lco_jax.report import compare_figures

    output.mkdir(parents=True, exist_ok=True)
    drawn = {
        "mieb_lite": compare_figures.draw_mieb_lite(rows, output),
        "mieb_sub18": compare_figures.draw_sub18(output),
    }
    if found:
        chance = {task: value for each in found for task, value in each.chance.items()}
        drawn["tasks"] = compare_figures.draw_tasks(found, chance, output)
    text = json.dumps(drawn, indent=1, ensure_ascii=False, allow_nan=False)
    replace_text(output / "compare.json", text + "\n")
    log.info("%s has compare.json and the figures %s", output, ", ".join(drawn))
