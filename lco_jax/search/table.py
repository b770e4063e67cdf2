"""Searches in a terminal."""

from collections import Counter
from collections.abc import Iterator

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lco_jax.search.corpus import kind_of
from lco_jax.search.find import Found, Ranking, paths_of
from lco_jax.search.names import snippet

_SNIPPET_CHARACTERS = 200
_MAX_ERRORS = 10


def show(found: Found, console: Console) -> None:
    """Print a table for each query (and kind of items)."""
    for ranking in found.rankings:
        console.print(_table(ranking))


def problems(found: Found) -> Iterator[str]:
    """A line for each warning, and lines about the items that were left out, the first of them."""
    for text in found.warnings:
        yield snippet(text, 500)
    reasons = Counter(found.errors.values())
    for text, count in reasons.most_common(_MAX_ERRORS):
        items = "an item" if count == 1 else f"{count} items"
        yield f"left out {items}: {snippet(text, 300)}"
    if len(reasons) > _MAX_ERRORS:
        rest = sum(count for _, count in reasons.most_common()[_MAX_ERRORS:])
        yield f"left out {rest} items more; --json lists all"


def _table(ranking: Ranking) -> Table:
    query = ranking.query
    shown = query.text or ", ".join(paths_of(query))
    table = Table(
        title=Text(snippet(shown, _SNIPPET_CHARACTERS)),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("rank", justify="right")
    table.add_column("score", justify="right")
    table.add_column("kind")
    table.add_column("item", overflow="fold")
    for match in ranking.matches:
        name = Text(snippet(match.name, _SNIPPET_CHARACTERS), style="bold")
        text = Text(snippet(match.item.text, _SNIPPET_CHARACTERS))
        shown = Text("\n").join(part for part in (name, text) if part)
        table.add_row(str(match.rank), f"{match.score:.3f}", kind_of(match.item), shown)
    return table
