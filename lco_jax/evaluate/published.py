"""Published numbers of LCO-Emb and its neighbours, and ours beside them.

`published/*.json` hold them with their sources. Scores are percentages.

Source: LCO-Emb, Table 1: the mean over the English columns is that of the first eight category
means, the mean over all that of the ten.
"""

import functools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

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


@dataclass(frozen=True)
class MiebLite:
    """The benchmark's columns and the published rows."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
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
            Row(row["model"], row["run"], row["columns"], row["mean_en"], row["mean_all"])
            for row in data["rows"]
        ),
        task_scores=data["task_scores"],
        without_subsets=data["without_subsets"],
        parts=data["parts"],
    )


def other_tables() -> dict[str, Any]:
    """Audio and video retrieval, the training strategies, and suites, as they are in the file."""
    return _read("lco_emb.json")


def side_by_side(ours: Sequence[Row], published: Sequence[Row] | None = None) -> Table:
    """Our rows above the published ones, column by column; absent cells are empty."""
    benchmark = mieb_lite()
    names = [column.name for column in benchmark.columns]
    table = Table("model", "run", *names, "mean(en)", "mean(all)", title="MIEB-Lite, %")
    for row in (*ours, *(benchmark.rows if published is None else published)):
        cells = (row.columns.get(name) for name in names)
        table.add_row(row.model, row.run, *map(_cell, (*cells, row.mean_en, row.mean_all)))
    return table


def _mean(values: Mapping[str, float], names: Sequence[str]) -> float | None:
    present = [values[name] for name in names if name in values]
    return statistics.mean(present) if len(present) == len(names) else None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _read(name: str) -> dict[str, Any]:
    file = resources.files("lco_jax.evaluate") / "published" / name
    return json.loads(file.read_text())
