"""How the command line says what the columns of a table are."""

from collections.abc import Sequence


def parse_columns(given: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of a column and its role from `query=anchor,answer=positive`.

    Raises:
        ValueError: a part is not of the form COLUMN=ROLE.
    """
    parts = [part.strip() for text in given for part in text.split(",") if part.strip()]
    pairs = [part.rpartition("=") for part in parts]
    for part, (column, sign, role) in zip(parts, pairs, strict=True):
        if not (column.strip() and sign and role.strip()):
            raise ValueError(
                f"--columns {part}: expected COLUMN=ROLE, as in query=anchor,answer=positive"
            )
    return tuple((column.strip(), role.strip()) for column, _, role in pairs)
