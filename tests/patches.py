"""Patches of images and clips laid out in a budget, as a batch does it."""

from collections.abc import Sequence

import numpy as np

from lco_jax.data.encode.encoded import Visual
from lco_jax.data.encode.positions import Grid
from lco_jax.data.media.patches import Patches, pixel_values
from lco_jax.data.pack.patch_layout import PatchBudget, PatchLayout
from lco_jax.models.config import VisionConfig


def lay_out(
    grids: Sequence[Grid], config: VisionConfig, frame_row: int, num_rows: int | None = None
) -> PatchLayout:
    """The layout of the grids in `num_rows` rows of `frame_row` patches (None: as few as found)."""
    budget = PatchBudget(config, frame_row)
    assert budget.add(grids) is not None, "a frame does not fit into a row"
    return budget.layout(num_rows)


def pixels_of(found: Visual | Patches, side: int = 14) -> np.ndarray:
    """An image or a clip as transformers gives it to a tower: patches of 2 square frames."""
    return pixel_values(found[0], found.statistics, 2, side**2)


def place(layout: PatchLayout, patches: np.ndarray, config: VisionConfig) -> np.ndarray:
    """A budget filled with the patches of the grids, which come in order of their units."""
    unit_patches, width = config.unit_patches, patches.shape[1]
    budget = np.zeros((layout.windows.size // unit_patches, unit_patches, width), patches.dtype)
    budget[layout.units] = patches.reshape(-1, unit_patches, width)
    return budget.reshape(-1, width)
