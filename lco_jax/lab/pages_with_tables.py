"""Tables in pages that people write: between two comments, which a command replaces."""

import re
from pathlib import Path

from lco_jax.runtime.disks import replace_text


def replace_table(page: Path, name: str, table: str) -> bool:
    """Put a table between `<!-- table: NAME -->` and `<!-- end of table: NAME -->` in a page; the
    rest stays.

    Returns:
        Whether the page has such a place.

    Raises:
        ValueError: it has but one of the two comments, or several.
    """
    text = page.read_text(encoding="utf-8")
    start, end = f"<!-- table: {name} -->", f"<!-- end of table: {name} -->"
    counts = text.count(start), text.count(end)
    if counts == (0, 0):
        return False
    if counts != (1, 1) or text.index(start) > text.index(end):
        raise ValueError(
            f"{page} has {counts[0]} times {start!r} and {counts[1]} times {end!r}; it needs one "
            "of each, in this order"
        )
    between = re.compile(f"{re.escape(start)}.*{re.escape(end)}", re.DOTALL)
    replaced = between.sub(lambda _: f"{start}\n{table.rstrip()}\n{end}", text)
    if replaced != text:
        replace_text(page, replaced)
    return True
