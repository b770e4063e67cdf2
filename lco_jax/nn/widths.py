"""Of how many keys programs have a branch, where a block of queries meets those near it alone."""

_STEP_BITS = 2


def widths(shortest: int, longest: int, step: int) -> tuple[int, ...]:
    """Numbers of keys, ascending to `longest`: at most four an octave, and none nearer to the next
    than `step`. A block takes the first that holds all that it sees.
    """
    found, width = [], shortest
    while width < longest:
        found.append(width)
        width += max(step, 1 << width.bit_length() - 1 - _STEP_BITS)
    return *found, longest
