"""Published numbers of LCO-Emb and its neighbours.

`published/*.json` hold them with their sources. Scores are percentages.

Source: LCO-Emb, Table 1: the mean over the English columns is that of the first eight category
means, the mean over all that of the ten.
"""

import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

_EXPERIMENTS = "experiments"
"""mteb's folder of them, in that of a model's revision."""
Run = Literal["paper", "mteb", "ours", "comparator"]


@dataclass(frozen=True)
class Column:
    """A category of MIEB-Lite: its score is the mean of its tasks."""

    name: str
    title: str
    english: bool
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A model's categories; those that nobody quotes are absent."""

    model: str
    run: Run
    """Printed in the paper, recomputed from current mteb results, or measured here: of our models,
    and of those that mteb's code runs."""
    columns: Mapping[str, float]
    mean_en: float | None
    mean_all: float | None
    noted: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column (or `mean_en`, `mean_all`) the names of the notes on it."""


@dataclass(frozen=True)
class Note:
    """What is to be known of a published cell: that it is solved, or compares with nothing."""

    mark: str
    """Behind the number."""
    text: str


@dataclass(frozen=True)
class MiebLite:
    """The benchmark's columns and the published rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: Mapping[str, Note]
    task_scores: Mapping[str, Mapping[str, float]]
    """Of the released checkpoints, by mteb's task names."""
    without_subsets: Mapping[str, Sequence[str]]
    """Subsets that a task's score leaves out."""
    parts: Mapping[str, str]
    """The task under whose name results of an aggregate may stand instead."""

    def category_means(self, task_scores: Mapping[str, float]) -> dict[str, float]:
        """The columns of which all tasks have a score."""
        return {
            column.name: statistics.mean(task_scores[task] for task in column.tasks)
            for column in self.columns
            if all(task in task_scores for task in column.tasks)
        }

    def means(self, categories: Mapping[str, float]) -> tuple[float | None, float | None]:
        """Over the English columns and over all; None where a column is absent."""
        return (
            _mean(categories, [column.name for column in self.columns if column.english]),
            _mean(categories, [column.name for column in self.columns]),
        )

    def row(self, model: str, task_scores: Mapping[str, float], run: Run = "ours") -> Row:
        """A row that was measured here, from the scores of its tasks."""
        categories = self.category_means(task_scores)
        return Row(model, run, categories, *self.means(categories))

    def read_results(self, folder: str | Path) -> dict[str, float]:
        """Task scores of the mteb result files in `folder`: the mean over subsets, in percent.

        Of several splits `test` counts. Files of other tasks are read alike; those of experiments,
        as mteb calls a model with other settings, are not.

        Raises:
            ValueError: a result has no score.
        """
        scores = {}
        for file in sorted(Path(folder).rglob("*.json")):
            if _EXPERIMENTS in file.relative_to(folder).parts:
                continue
            record = json.loads(file.read_text())
            if isinstance(record, dict) and {"task_name", "scores"} <= record.keys():
                scores[record["task_name"]] = self._score(file, record)
        parts = {whole: scores[part] for whole, part in self.parts.items() if part in scores}
        return parts | scores

    def _score(self, file: Path, record: dict[str, Any]) -> float:
        name, splits = record["task_name"], record["scores"]
        chosen = [splits["test"]] if "test" in splits else list(splits.values())
        left_out = self.without_subsets.get(name, ())
        values = [
            subset["main_score"]
            for split in chosen
            for subset in split
            if subset["hf_subset"] not in left_out
        ]
        if not values:
            raise ValueError(f"{file}: {name} has no score in its splits {sorted(splits)}")
        return 100 * statistics.mean(values)


@functools.cache
def mieb_lite() -> MiebLite:
    """MIEB-Lite as published."""
    data = _read("mieb_lite.json")
    return MiebLite(
        columns=tuple(
            Column(**{**column, "tasks": tuple(column["tasks"])}) for column in data["columns"]
        ),
        rows=tuple(
            Row(
                row["model"],
                row["run"],
                row["columns"],
                row["mean_en"],
                row["mean_all"],
                {name: tuple(notes) for name, notes in row.get("noted", {}).items()},
            )
            for row in data["rows"]
        ),
        notes=_notes(data),
        task_scores=data["task_scores"],
        without_subsets=data["without_subsets"],
        parts=data["parts"],
    )


@dataclass(frozen=True)
class Strategy:
    """A way to train Qwen2.5-VL, on MIEB-Sub18; of other models only the average is known."""

    size: str
    strategy: str
    columns: Mapping[str, float]
    average: float
    gpu_hours: float | None
    """Of the paper, on H20."""
    noted: Mapping[str, tuple[str, ...]]
    """By column (or `average`) the names of the notes on it."""


@dataclass(frozen=True)
class Strategies:
    """The paper's ablation of the training strategy."""

    benchmark: str
    columns: tuple[str, ...]
    rows: tuple[Strategy, ...]
    notes: Mapping[str, Note]


@functools.cache
def strategies() -> Strategies:
    """The ablation as published, with the averages of other models on the same tasks below it."""
    data = _read("lco_emb.json")["strategies"]
    names = tuple(data["columns"])
    rows = [
        Strategy(
            row["size"],
            row["strategy"],
            dict(zip(names, row["columns"], strict=True)),
            row["average"],
            row["gpu_hours"],
            row.get("noted", {}),
        )
        for row in data["rows"]
    ]
    rows += [
        Strategy("", other["model"], {}, other["average"], None, other["noted"])
        for other in data["others"]
    ]
    return Strategies(data["benchmark"], names, tuple(rows), _notes(data))


def retrieval() -> dict[str, dict[str, float]]:
    """Recall@1 of audio and video retrieval of the released checkpoints, by task and model."""
    return _read("lco_emb.json")["audio_video_retrieval"]["rows"]


def suites() -> dict[str, dict[str, float]]:
    """Means over the tasks of whole suites, by suite and model."""
    return _read("lco_emb.json")["suites"]["rows"]


def _notes(data: dict[str, Any]) -> dict[str, Note]:
    return {name: Note(**note) for name, note in data["notes"].items()}


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    present = [values[name] for name in names if name in values]
    return statistics.mean(present) if len(present) == len(names) else None


def _read(name: str) -> dict[str, Any]:
    file = resources.files("lco_jax.evaluate") / "published" / name
    return json.loads(file.read_text())
