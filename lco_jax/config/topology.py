"""Names of TPU slices, such as `v5p:4x4x4`."""

import math
import re
from dataclasses import dataclass

_NUM_AXES = {"v4": 3, "v5e": 2, "v5p": 3, "v6e": 2}
"""Of the network between the chips, by generation."""


@dataclass(frozen=True)
class TopologyName:
    """A generation of TPUs and how many chips a slice has along each axis."""

    generation: str
    shape: tuple[int, ...]

    @property
    def chips(self) -> int:
        """In the slice."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def parse_topology(text: str) -> TopologyName:
    """The slice that `v5p:4x4x4` names.

    Raises:
        ValueError: no such generation, or not as many axes as its network has.
    """
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", text)
    shape = tuple(map(int, match[2].split("x"))) if match else ()
    if match is None or _NUM_AXES.get(match[1]) != len(shape):
        raise ValueError(
            f"topology {text!r} must be v5e:AxB, v6e:AxB, v4:AxBxC or v5p:AxBxC, such as "
            "v5e:16x16 or v5p:4x4x4"
        )
    return TopologyName(match[1], shape)
