"""Published numbers as tables, with ours beside them, marks at cells, and footnotes."""

from collections.abc import Iterable, Mapping, Sequence

from rich.table import Table

from lco_jax.evaluate.published import Note, Row, mieb_lite, retrieval, strategies, suites


def side_by_side(ours: Sequence[Row], published: Sequence[Row] | None = None) -> Table:
    """Our rows of MIEB-Lite above the published ones (None: all); absent cells are empty."""
    benchmark = mieb_lite()
    names = [column.name for column in benchmark.columns]
    table = Table("model", "run", *names, "mean(en)", "mean(all)", title="MIEB-Lite, %")
    rows = (*ours, *(benchmark.rows if published is None else published))
    for row in rows:
        values = {**row.columns, "mean_en": row.mean_en, "mean_all": row.mean_all}
        cells = (
            _cell(values.get(name), row.noted.get(name, ()), benchmark.notes)
            for name in (*names, "mean_en", "mean_all")
        )
        table.add_row(row.model, row.run, *cells)
    _add_footnotes(table, rows, benchmark.notes)
    legend = "; ".join(f"{column.name}: {column.title}" for column in benchmark.columns)
    table.caption = f"{legend}\n{table.caption}".strip()
    return table


def strategies_table() -> Table:
    """The ablation of the training strategy on MIEB-Sub18."""
    found = strategies()
    table = Table("size", "strategy", *found.columns, "average", "GPU hours")
    table.title = f"{found.benchmark}, %"
    for row in found.rows:
        values = {**row.columns, "average": row.average}
        cells = (
            _cell(values.get(name), row.noted.get(name, ()), found.notes)
            for name in (*found.columns, "average")
        )
        hours = "" if row.gpu_hours is None else f"{row.gpu_hours:g}"
        table.add_row(row.size, row.strategy, *cells, hours)
    _add_footnotes(table, found.rows, found.notes)
    return table


def released_table() -> Table:
    """Audio and video retrieval and suites of the released checkpoints, by current mteb."""
    tables = {
        **{f"{task}, Recall@1": scores for task, scores in retrieval().items()},
        **{f"{suite}, mean": scores for suite, scores in suites().items()},
    }
    models = list(dict.fromkeys(model for scores in tables.values() for model in scores))
    table = Table("task", *models, title="Released checkpoints by current mteb, %")
    for task, scores in tables.items():
        table.add_row(task, *(_cell(scores.get(model)) for model in models))
    return table


def footnotes(rows: Iterable, notes: Mapping[str, Note]) -> list[str]:
    """The notes on cells of these rows, each once, and those that are on no single cell."""
    used = {name for row in rows for names in row.noted.values() for name in names}
    return [
        f"{note.mark} {note.text}".strip()
        for name, note in notes.items()
        if name in used or not note.mark
    ]


def _add_footnotes(table: Table, rows: Iterable, notes: Mapping[str, Note]) -> None:
    table.caption = "\n".join(footnotes(rows, notes))
    table.caption_justify = "left"


def _cell(
    value: float | None, noted: Sequence[str] = (), notes: Mapping[str, Note] | None = None
) -> str:
    marks = "".join(notes[name].mark for name in noted) if notes else ""
    return "" if value is None else f"{value:.2f}{marks}"
