"""The grids of sizes to which shapes are rounded up, so that few programs are compiled."""


def round_rows(rows: int) -> int:
    """The next number of rows of a grid with eight steps an octave."""
    return _round_up(rows, 3)


def round_coarsely(size: int) -> int:
    """The next size of a grid with four steps an octave, for the second of two sizes of a shape:
    programs are as many as pairs.
    """
    return _round_up(size, 2)


def _round_up(size: int, octave_bits: int) -> int:
    step = 1 << max(0, (size - 1).bit_length() - 1 - octave_bits)
    return -(-size // step) * step
