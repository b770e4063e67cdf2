"""Tables on the standard output, of which no cell is cut: one that is wider than the terminal (or
than a file, which counts as a terminal of 80 columns) is shown in parts, a part below the other.
"""

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

_EDGE = 3  # of each column: a blank on both sides and a line


def show(*tables: Table, names: int = 1) -> None:
    """Print tables with the usual frame.

    Args:
        names: how many columns, of the first, say what a row is. Each part begins with them.
    """
    console = Console()
    for table in tables:
        for part in _parts(table, names, console):
            # Names and one column may be wider than a very narrow terminal.
            needed = 1 + sum(column.width + _EDGE for column in part.columns)
            Console(width=max(console.width, needed)).print(part)
        if table.caption:
            console.print(table.caption, style="table.caption")


def _parts(table: Table, names: int, console: Console) -> Iterator[Table]:
    """The table with columns as wide as their longest words at least, in parts that fit."""
    columns = list(table.columns)
    sizes = [_size(column, console) for column in columns]
    taken = 1 + sum(sizes[at].minimum + _EDGE for at in range(names))
    groups: list[list[int]] = [list(range(names))]
    room = console.width - taken
    for at in range(names, len(columns)):
        room -= sizes[at].minimum + _EDGE
        if room < 0 and len(groups[-1]) > names:
            groups.append(list(range(names)))
            room = console.width - taken - sizes[at].minimum - _EDGE
        groups[-1].append(at)
    for group in groups:
        part = _part(table, [columns[at] for at in group])
        widths = _widths([sizes[at] for at in group], console.width)
        for column, width in zip(part.columns, widths, strict=True):
            column.width = width
        yield part


def _part(table: Table, columns: Sequence[Column]) -> Table:
    fresh = [Column(column.header, justify=column.justify) for column in columns]
    part = Table(*fresh, title=table.title)
    for cells in zip(*(column.cells for column in columns), strict=True):
        part.add_row(*cells)
    return part


def _size(column: Column, console: Console) -> Measurement:
    """Its longest word, and its longest cell."""
    cells = (column.header, *column.cells)
    cells = [Measurement.get(console, console.options, cell) for cell in cells]
    return Measurement(max(cell.minimum for cell in cells), max(cell.maximum for cell in cells))


def _widths(sizes: Sequence[Measurement], total: int) -> list[int]:
    """Of the columns of a part: what is left goes to the narrowest that could use it."""
    widths = [size.minimum for size in sizes]
    left = total - 1 - sum(width + _EDGE for width in widths)
    while left > 0:
        wanting = [at for at, size in enumerate(sizes) if widths[at] < size.maximum]
        if not wanting:
            break
        widths[min(wanting, key=widths.__getitem__)] += 1
        left -= 1
    return widths
