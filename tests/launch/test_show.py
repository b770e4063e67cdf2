"""Tables are read in a narrow terminal, too: no cell is cut, and nothing is left out."""

import re

import pytest
from rich.table import Table

from lco_jax.cli.show import show
from lco_jax.evaluate import published_tables
from lco_jax.evaluate.published import mieb_lite


def _rows(said):
    """The cells of the lines of tables."""
    lines = (
        re.split("[│┃]", line)[1:-1] for line in said.splitlines() if line[:1] in "│┃" and line
    )
    return [[cell.strip() for cell in line] for line in lines]


@pytest.mark.parametrize("width", (40, 80, 100, 300))
@pytest.mark.parametrize("make", (published_tables.side_by_side, published_tables.strategies_table))
def test_every_word_of_a_table_is_shown(width, make, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    table = make([]) if make is published_tables.side_by_side else make()
    show(table, names=2)
    said = capsys.readouterr().out
    assert "…" not in said and max(map(len, said.splitlines())) <= max(width, 45)
    shown = [word for row in _rows(said) for cell in row for word in cell.split()]
    for column in table.columns:
        for text in (column.header, *column.cells):
            assert set(text.split()) <= set(shown)
    assert " ".join(table.caption.split()) in " ".join(said.split())


def test_short_names_of_categories_are_explained():
    said = published_tables.side_by_side([]).caption
    assert all(f"{column.name}: {column.title}" in said for column in mieb_lite().columns)


def test_parts_begin_with_the_names_of_rows(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    table = Table("name", *(f"column{number}" for number in range(4)))
    table.add_row("one", *"abcd")
    table.add_row("two", *"efgh")
    show(table)
    heads, first, second = [], [], []
    for number, row in enumerate(_rows(capsys.readouterr().out)):
        (heads, first, second)[number % 3].append(row)
    assert all(row[0] == "name" for row in heads) and len(heads) == 2
    assert [cell for row in first for cell in row[1:]] == list("abcd")
    assert [cell for row in second for cell in row[1:]] == list("efgh")


def test_a_table_that_fits_is_one(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    table = Table("name", "score", title="all")
    table.add_row("a name of several words", "1.5")
    show(table)
    assert ["a name of several words", "1.5"] in _rows(capsys.readouterr().out)
