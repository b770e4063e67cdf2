"""Results of several models in one folder: who has which scores, on the same data.

    FOLDER/results/ORG__NAME/REVISION/TASK.json    of mteb's evaluators
    FOLDER/offline/ORG__NAME/REVISION/TASK.json    of ours

Both are in mteb's file format.
"""

import json
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
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
    chance: dict[str, float] = field(default_factory=dict)
    """In percent, by task, what a model gets that learned nothing; of offline tasks alone."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """In percent, by task, the 95 % interval of the score over queries, where it was taken."""

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
    chance: dict[str, float] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for kind in (_OFFLINE, _MTEB):
        folder = output / kind / _as_path(name) / revision
        found = mieb_lite().read_results(folder)
        if kind == _OFFLINE and offline is not None:
            found = {task: found[task] for task in offline if task in found}
        scores |= found
        for file in folder.glob("*.json"):
            record = json.loads(file.read_text())
            if isinstance(record, dict) and "task_name" in record:
                task = record["task_name"]
                data[task] = record.get("dataset_revision", "")
                (first, *_), *_ = record["scores"].values()
                if "chance" in first:
                    chance[task] = 100 * first["chance"]
                if "main_score_low" in first:
                    ends = (first[f"main_score_{end}"] for end in ("low", "high"))
                    intervals[task] = tuple(100 * value for value in ends)
    return Results(name, revision, scores, data, chance, intervals)


def read_others(output: Path, own: Results) -> list[Results]:
    """The results of all other models and revisions in a folder, of tasks on the data of `own`.

    Raises:
        ValueError: a result has no score.
    """
    others = []
    for name, revision in _models_in(output):
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


def read_all(folders: Sequence[Path]) -> list[Results]:
    """The results of all models and revisions in several folders; of a task, those on the data of
    the first model that has it.

    Raises:
        FileNotFoundError: a folder holds no results.
        ValueError: a result has no score.
    """
    found: list[Results] = []
    data: dict[str, str] = {}
    for folder in folders:
        models = _models_in(folder)
        if not models:
            raise FileNotFoundError(
                f"{folder} has neither {_OFFLINE}/ORG__NAME/REVISION nor {_MTEB}/...; give a "
                "folder that `lco evaluate --output` wrote"
            )
        for name, revision in models:
            own = read_results(folder, name, revision)
            differing = {task for task, of in own.data.items() if data.setdefault(task, of) != of}
            if differing:
                names = ", ".join(sorted(differing))
                log.warning("left out of %s, as it had other data: %s", own.label, names)
            scores = {task: own.scores[task] for task in own.scores if task not in differing}
            found.append(replace(own, scores=scores))
    return found


def _models_in(output: Path) -> list[tuple[str, str]]:
    """Names and revisions of the models with results in a folder."""
    found = {
        (folder.parent.name.replace("__", "/", 1), folder.name)
        for kind in (_OFFLINE, _MTEB)
        for folder in (output / kind).glob("*/*")
        if folder.is_dir()
    }
    return sorted(found)


def side_by_side(own: Results, others: Sequence[Results]) -> Table:
    """Main scores of one model by task, and beside them those of others in the same tasks."""
    shown = [other for other in others if own.scores.keys() & other.scores.keys()]
    if shown:
        return tasks_table([own, *shown], list(own.scores))
    table = Table("task", "main score, %")
    for task, value in own.scores.items():
        table.add_row(task, f"{value:.2f}")
    return table


def tasks_table(found: Sequence[Results], tasks: Sequence[str]) -> Table:
    """Main scores by task (rows) and model (columns)."""
    table = Table("task", *(each.label for each in found), title="main score, %")
    for task in tasks:
        values = (each.scores.get(task) for each in found)
        table.add_row(task, *("" if value is None else f"{value:.2f}" for value in values))
    return table


def _as_path(name: str) -> str:
    return name.replace("/", "__").replace(" ", "_")
