"""The paper's figures of results: MIEB-Lite and MIEB-Sub18 as bars, and the tasks of a folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from etils import epath

from lco_jax.evaluate.published import Note, Row, mieb_lite, strategies
from lco_jax.evaluate.published_tables import footnotes
from lco_jax.evaluate.results import OURS, Results
from lco_jax.report.bars import Bar, draw_bars
from lco_jax.report.scaling_figure import save

_MEANS = {"mean_en": "Mean (47 English tasks)", "mean_all": "Mean (51 tasks)"}
_SUB18 = {
    "Rtr-m": "Retrieval (multilingual)",
    "vSTS-en": "Visual STS (en)",
    "vSTS-cross": "Visual STS (cross-lingual)",
    "vSTS-multi": "Visual STS (multilingual)",
    "Doc": "Document understanding",
    "LP": "Linear probing",
}
_MOST_TASKS = 24
"""Panels of one figure."""


def draw_mieb_lite(ours: Sequence[Row], folder: Path) -> dict[str, Any]:
    """Write `mieb_lite.png` and `.svg`: our rows above those published that have a category; what
    was drawn."""
    benchmark = mieb_lite()
    rows = [*ours, *(row for row in benchmark.rows if row.columns or row.mean_en is not None)]
    panels = {column.name: column.title for column in benchmark.columns} | _MEANS
    bars = []
    for row in rows:
        means = {"mean_en": row.mean_en, "mean_all": row.mean_all}
        known = {name: value for name, value in means.items() if value is not None}
        marks = _marks(row.noted, benchmark.notes)
        bars.append(Bar(row.model, row.run, {**row.columns, **known}, marks))
    notes = footnotes(rows, benchmark.notes)
    figure = draw_bars("MIEB-Lite by category", panels, bars, notes=notes)
    save(figure, epath.Path(folder), "mieb_lite")
    return _record(panels, bars, notes)


def draw_sub18(folder: Path) -> dict[str, Any]:
    """Write `mieb_sub18.png` and `.svg`: the paper's strategies, and averages of other models."""
    found = strategies()
    panels = {name: _SUB18[name] for name in found.columns} | {"average": "Average"}
    bars = [
        Bar(
            f"{row.size} {row.strategy}".strip(),
            "paper",
            {**row.columns, "average": row.average},
            _marks(row.noted, found.notes),
        )
        for row in found.rows
    ]
    notes = footnotes(found.rows, found.notes)
    save(draw_bars(found.benchmark, panels, bars, notes=notes), epath.Path(folder), "mieb_sub18")
    return _record(panels, bars, notes)


def draw_tasks(
    found: Sequence[Results], chance: Mapping[str, float], folder: Path
) -> dict[str, Any]:
    """Write `tasks.png` and `.svg` (several files if there are many tasks): the main score of every
    task that a model was evaluated in; what was drawn.

    Args:
        chance: in percent, by task, where it is known.
    """
    tasks = sorted({task for each in found for task in each.scores})
    bars = [
        Bar(
            each.label,
            "ours" if each.name.startswith(OURS) else "comparator",
            each.scores,
            intervals=each.intervals,
        )
        for each in sorted(found, key=lambda each: not each.name.startswith(OURS))
    ]
    pages = [tasks[i : i + _MOST_TASKS] for i in range(0, len(tasks), _MOST_TASKS)]
    for number, page in enumerate(pages, start=1):
        panels = {task: task for task in page}
        known = {task: chance[task] for task in page if task in chance}
        name = "tasks" if len(pages) == 1 else f"tasks_{number}"
        figure = draw_bars("Main score by task", panels, bars, chance=known)
        save(figure, epath.Path(folder), name)
    return _record({task: task for task in tasks}, bars, ()) | {"chance": dict(chance)}


def _marks(noted: Mapping[str, Sequence[str]], notes: Mapping[str, Note]) -> dict[str, str]:
    return {column: "".join(notes[name].mark for name in names) for column, names in noted.items()}


def _record(panels: Mapping[str, str], bars: Sequence[Bar], notes: Sequence[str]) -> dict[str, Any]:
    return {"panels": dict(panels), "models": [asdict(bar) for bar in bars], "notes": list(notes)}
