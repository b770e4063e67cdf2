"""Sizes of a tower whose inner layers give features, too, read from the `config.json`."""

import math
from dataclasses import dataclass
from typing import Any

from lco_jax.models.hf_schemas import DeepVision
from lco_jax.models.json_files import check, naming
from lco_jax.models.tower_config import PatchTower, check_width


@dataclass(frozen=True)
class DeepConfig(PatchTower):
    """The Qwen3-VL vision tower: a patch attends to its whole frame, positions are interpolated in
    a stored table, and besides the last layer some inner ones give features."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_size: int
    """Width of the decoder that reads the features."""
    num_channels: int
    patch_px: int
    merge_size: int
    """Patches of a side of the square that becomes one token (a merge unit)."""
    frames_per_patch: int
    """Video frames of a patch; an image is repeated as often."""
    table_side: int
    """Rows, and columns, of the positions that are stored."""
    deep_layers: tuple[int, ...]
    """Layers whose output gives features, too. The decoder adds those of the first one after its
    own first layer, and so on."""

    has_windows = False
    """Whether layers see windows of an image."""
    ids_per_second = 0.0
    """M-RoPE time ids of a second of video: each temporal patch is a medium of its own."""
    _mlp_matrices = 2

    def __post_init__(self):
        self._check_heads()
        layers = self.deep_layers
        if list(layers) != sorted({*layers} & set(range(self.num_layers))):
            raise ValueError(
                f"deepstack_visual_indexes={layers} must be ascending and lie in "
                f"0..{self.num_layers - 1}"
            )

    @property
    def full_layers(self) -> tuple[int, ...]:
        """Layers in which a patch attends to its whole frame: all of them."""
        return tuple(range(self.num_layers))

    @property
    def sizes(self) -> dict[str, int]:
        """As of other towers, and the positions that are stored."""
        return {**super().sizes, "S": self.table_side**2}


def read_deep(outer: dict[str, Any], where: str, width: int) -> DeepConfig | None:
    """The vision tower in a config whose tower gives features of several layers, if it has one.

    Args:
        where: what errors call the config.
        width: of the decoder that reads the features.

    Raises:
        ValueError: missing or wrong field, or a feature the tower does not have.
    """
    if outer.get("vision_config") is None:
        return None
    where = f"{where}: vision_config"
    vision = check(DeepVision, outer["vision_config"], where)
    check_width(vision.out_hidden_size, width, where)
    side = math.isqrt(vision.num_position_embeddings)
    if side**2 != vision.num_position_embeddings:
        raise ValueError(
            f"{where}: num_position_embeddings={vision.num_position_embeddings} must be a square "
            "number: the positions are those of a square of patches"
        )
    with naming(where):
        return DeepConfig(
            num_layers=vision.depth,
            hidden_size=vision.hidden_size,
            intermediate_size=vision.intermediate_size,
            num_heads=vision.num_heads,
            out_size=vision.out_hidden_size,
            num_channels=3,
            patch_px=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            frames_per_patch=vision.temporal_patch_size,
            table_side=side,
            deep_layers=tuple(vision.deepstack_visual_indexes),
        )
