"""A file that becomes shorter while it is read is an error with a name, and no bus error."""

from lco_jax.data.sources.jsonl import JsonLines
from tests.faults import runner, shrinking


def test_files_that_shrink_are_named(tmp_path):
    outcome = runner.run(
        shrinking.read_all, tmp_path, names=[str(tmp_path)], expected=shrinking.all_named
    )
    assert outcome.kind == "right", outcome


def test_lines_of_any_length_are_found(tmp_path):
    """Longer ones than are looked through at once, empty ones, and a last one without an end."""
    lines = ["x" * length for length in (0, 1, 1 << 20, (1 << 20) - 3, 5, 0, 3 << 20, 7)]
    file = tmp_path / "a.jsonl"
    file.write_text("\n".join(f'"{line}"' if line else "" for line in lines))
    table = JsonLines(str(file))
    rows = list(table.find_rows())
    assert [row.number for row in rows] == [n for n, line in enumerate(lines, 1) if line]
    for row in (*rows, *rows[::-1]):
        assert table.read(row) == lines[row.number - 1]
