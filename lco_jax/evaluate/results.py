"""Results of several models in one folder: who has which scores, on the same data.

    FOLDER/results/ORG__NAME/REVISION/TASK.json    of mteb's evaluators
    FOLDER/offline/ORG__NAME/REVISION/TASK.json    of ours

Both are in mteb's file format.
"""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from lco_jax.evaluate.published import Row, mieb_lite

log = logging.getLogger(__name__)

COMPARATOR = "mteb:"
"""Before the name of a model of mteb's registry, where a folder or a hub id could stand."""
OURS = "lco_jax/"
"""Before the names of our models; those of mteb's registry begin with their organisation."""
_MTEB, _OFFLINE = "results", "offline"
_SHOWN = 8
"""Characters of a revision that are enough to tell two apart."""


@dataclass(frozen=True)
class Results:
    """The scores of one revision of a model."""

    name: str
    revision: str
    scores: dict[str, float]
    """In percent, by task."""
    data: dict[str, str]
    """The revision of each task's data."""

    @property
    def label(self) -> str:
        """What stands over a column."""
        return f"{self.name.removeprefix(OURS)} ({self.revision[:_SHOWN]})"

    def row(self) -> Row:
        """Its row of MIEB-Lite."""
        run = "ours" if self.name.startswith(OURS) else "comparator"
        return mieb_lite().row(self.label, self.scores, run)


def offline_folder(output: Path, name: str, revision: str) -> Path:
    """Where the results of a model in offline tasks are kept."""
    return output / _OFFLINE / _as_path(name) / revision


def read_results(
    output: Path, name: str, revision: str, offline: Collection[str] | None = None
) -> Results:
    """What is kept of one revision of a model.

    Args:
        offline: the offline tasks that count (None: all).

    Raises:
        ValueError: a result has no score.
    """
    scores: dict[str, float] = {}
    data: dict[str, str] = {}
    for kind in (_OFFLINE, _MTEB):
        folder = output / kind / _as_path(name) / revision
        found = mieb_lite().read_results(folder)
        if kind == _OFFLINE and offline is not None:
            found = {task: found[task] for task in offline if task in found}
        scores |= found
        for file in folder.glob("*.json"):
            record = json.loads(file.read_text())
            if isinstance(record, dict) and "task_name" in record:
                data[record["task_name"]] = record.get("dataset_revision", "")
    return Results(name, revision, scores, data)


def read_others(output: Path, own: Results) -> list[Results]:
    """The results of all other models and revisions in a folder, of tasks on the data of `own`.

    Raises:
        ValueError: a result has no score.
    """
    found = {
        (folder.parent.name.replace("__", "/", 1), folder.name)
        for kind in (_OFFLINE, _MTEB)
        for folder in (output / kind).glob("*/*")
        if folder.is_dir()
    }
    others = []
    for name, revision in sorted(found):
        if (_as_path(name), revision) == (_as_path(own.name), own.revision):
            continue
        other = read_results(output, name, revision)
        differing = [
            task for task, of in other.data.items() if task in own.data and of != own.data[task]
        ]
        if differing:
            log.info("not shown of %s, as it had other data: %s", other.label, ", ".join(differing))
        scores = {task: score for task, score in other.scores.items() if task not in differing}
        others.append(Results(name, revision, scores, other.data))
    return others


def side_by_side(own: Results, others: Sequence[Results]) -> Table:
    """Main scores of one model by task, and beside them those of others in the same tasks."""
    shown = [other for other in others if own.scores.keys() & other.scores.keys()]
    title = "main score, %" if not shown else own.label
    table = Table("task", title, *(other.label for other in shown))
    if shown:
        table.title = "main score, %"
    for task in own.scores:
        values = (each.scores.get(task) for each in (own, *shown))
        table.add_row(task, *("" if value is None else f"{value:.2f}" for value in values))
    return table


def _as_path(name: str) -> str:
    return name.replace("/", "__").replace(" ", "_")
