"""Names and texts of strangers, fit to be shown."""


def printable(text: str) -> str:
    """Without characters that steer a terminal, turn the direction of writing or have no UTF-8
    (names of files may be any bytes); line breaks and tabs become spaces.
    """
    return "".join(
        character
        if character.isprintable()
        else " "
        if character.isspace()
        else "\N{REPLACEMENT CHARACTER}"
        for character in text
    )


def snippet(text: str, max_characters: int) -> str:
    """The beginning of a text in one line."""
    line = " ".join(printable(text).split())
    return line if len(line) <= max_characters else line[: max_characters - 1] + "…"
