"""How one tensor lies on the hub and in our tree: `"(N H) D -> D N H"`."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from einops import rearrange
from jaxtyping import Shaped

_TILE = 128
"""Side of the square tiles in which arrays are transposed: two of them fit a core's L2 cache."""


@dataclass(frozen=True)
class Layout:
    """The dimensions of one tensor, hub side first, in the notation of einops.

    The letters are those of `lco_jax.runtime.axes`; a group such as `(N H)` is one dimension on
    the hub.
    """

    text: str

    def __post_init__(self):
        hub, arrow, ours = self.text.partition(" -> ")
        letters = hub.replace("(", "").replace(")", "").split()
        if not arrow or "(" in ours or sorted(letters) != sorted(set(ours.split())):
            raise ValueError(
                f"layout {self.text!r} must read 'HUB -> OURS', both sides with the same letters, "
                "groups on the left only"
            )

    @property
    def hub(self) -> str:
        """The hub side, e.g. `"(N H) D"`."""
        return self.text.partition(" -> ")[0]

    @property
    def ours(self) -> str:
        """Our side, e.g. `"D N H"`."""
        return self.text.partition(" -> ")[2]

    def our_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape in our tree, with sizes by letter."""
        return tuple(sizes[letter] for letter in self.ours.split())

    def hub_shape(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """The shape on the hub, with sizes by letter."""
        stand_in = np.broadcast_to(np.empty((), np.bool_), self.our_shape(sizes))
        return rearrange(stand_in, f"{self.ours} -> {self.hub}").shape

    def sizes(self, our_shape: tuple[int, ...]) -> dict[str, int]:
        """Sizes by letter of a tensor in our tree."""
        return dict(zip(self.ours.split(), our_shape, strict=True))

    def to_ours(
        self, array: Shaped[np.ndarray, "*hub"], sizes: Mapping[str, int]
    ) -> Shaped[np.ndarray, "*ours"]:
        """`array` as it lies in our tree; a numpy array comes back as a view.

        Raises:
            einops.EinopsError: the shape contradicts the sizes.
        """
        letters = self.ours.split()
        return rearrange(array, self.text, **{letter: sizes[letter] for letter in letters})

    def to_hub(self, array: Shaped[np.ndarray, "*ours"]) -> Shaped[np.ndarray, "*hub"]:
        """`array` as it lies on the hub; a contiguous numpy array comes back as a view."""
        return rearrange(array, f"{self.ours} -> {self.hub}")

    def bias(self) -> "Layout":
        """The layout of the bias of a hub weight, which has its outputs first."""
        outputs = _split_matrix(self.hub)[0].strip("()")
        return Layout(f"{_grouped(outputs)} -> {outputs}")

    def lora(self) -> tuple["Layout", "Layout"]:
        """The layouts of the low-rank factors A and B of a `(out) (in)` hub matrix.

        Source: peft Linear, whose lora_A.weight is (rank, in) and lora_B.weight (out, rank).
        """
        outputs, inputs = (side.strip("()") for side in _split_matrix(self.hub))
        a = Layout(f"R {_grouped(inputs)} -> R {inputs}")
        return a, Layout(f"{_grouped(outputs)} R -> R {outputs}")


def _split_matrix(hub: str) -> tuple[str, str]:
    """The two dimensions of a hub matrix: `"(N H) D"` gives `"(N H)"` and `"D"`."""
    if hub.startswith("("):
        first, _, second = hub.partition(") ")
    else:
        first, _, second = hub.partition(" ")
    return first, second


def _grouped(letters: str) -> str:
    return f"({letters})" if " " in letters else letters


def copy_tiled(target: Shaped[np.ndarray, "*shape"], source: Shaped[np.ndarray, "*shape"]) -> None:
    """`target[...] = source`, in tiles where the two lie transposed in memory.

    A plain assignment walks one side across cache lines; packed tiles make it 4 times faster.
    """
    fastest = int(np.argmin(source.strides)) if source.ndim else -1
    if fastest in (-1, source.ndim - 1):
        target[...] = source
        return
    target = np.moveaxis(target, fastest, -2)
    source = np.moveaxis(source, fastest, -2)
    rows, columns = (range(0, size, _TILE) for size in source.shape[-2:])
    for outer in np.ndindex(source.shape[:-2]):
        for row, column in itertools.product(rows, columns):
            tile = (*outer, slice(row, row + _TILE), slice(column, column + _TILE))
            # Packed first: rows that lie a power of two apart would evict each other.
            target[tile] = source[tile].copy(order="K")
