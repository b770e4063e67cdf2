"""Sizes of a tower that reads images in tiles, read from the `config.json` of a checkpoint."""

from dataclasses import dataclass
from typing import Any

from lco_jax.models.hf_schemas import TiledReader, TileEncoder
from lco_jax.models.json_files import check, naming

_ASSUMED = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
"""What files leave out. Source: transformers CLIPVisionConfig."""
_PINPOINTS = ((336, 672), (672, 336), (672, 672), (1008, 336), (336, 1008))
"""Of files that name none. Source: transformers LlavaNextConfig."""
_STACKED_LAYERS = -2
"""The layer whose output is read unless a file says otherwise, counted from behind."""


@dataclass(frozen=True)
class TileConfig:
    """The CLIP vision tower, which sees an image as tiles of one size, and its projector.

    In what other towers have, too, a patch is of one frame and one token, and a tile is a frame.
    """

    num_layers: int
    """Those that run; of what follows no feature depends."""
    num_stored_layers: int
    """Of the checkpoint."""
    hidden_size: int
    intermediate_size: int
    num_heads: int
    out_size: int
    """Width of the decoder that reads the features."""
    num_channels: int
    patch_px: int
    tile_px: int
    """Side of a tile."""
    norm_eps: float
    pinpoints: tuple[tuple[int, int], ...]
    """Height and width of the images that are cut into tiles; the best of them is taken."""
    has_projector_bias: bool = True

    merge_size = 1
    unit_patches = 1
    frames_per_patch = 1
    has_windows = False
    """Whether layers see windows of an image."""
    has_grids = False
    """Whether patches have rows and columns."""
    deep_layers = ()
    """Inner layers whose output gives features, too."""
    extra_features = 1
    """Behind those of the patches: what ends each line of an image."""

    def __post_init__(self):
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"vision hidden_size={self.hidden_size} must be a multiple of "
                f"num_attention_heads={self.num_heads}"
            )
        if self.tile_px % self.patch_px:
            raise ValueError(
                f"image_size={self.tile_px} must be a multiple of patch_size={self.patch_px}"
            )
        for size in self.pinpoints:
            if size[0] % self.tile_px or size[1] % self.tile_px:
                raise ValueError(
                    f"image_grid_pinpoints has {list(size)}, which is no multiple of "
                    f"image_size={self.tile_px}"
                )

    @property
    def side_patches(self) -> int:
        """Patches of a side of a tile."""
        return self.tile_px // self.patch_px

    @property
    def tile_patches(self) -> int:
        """Patches of a tile."""
        return self.side_patches**2

    @property
    def full_layers(self) -> tuple[int, ...]:
        """Layers in which a patch attends to its whole tile: all of them."""
        return tuple(range(self.num_layers))

    @property
    def sizes(self) -> dict[str, int]:
        """Sizes by dimension letter (see `lco_jax.models.tiles`)."""
        return {
            "D": self.hidden_size,
            "F": self.intermediate_size,
            "N": self.num_heads,
            "H": self.hidden_size // self.num_heads,
            "C": self.num_channels,
            "Y": self.patch_px,
            "X": self.patch_px,
            "S": self.tile_patches + 1,
            "E": self.out_size,
            "O": self.out_size,
        }

    @property
    def matrix_weights(self) -> int:
        """The weights that multiply every patch."""
        layer = self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        return self.embed_weights + self.num_layers * layer + self.projector_weights

    @property
    def embed_weights(self) -> int:
        """Of the matrix weights those that read pixels."""
        return self.num_channels * self.patch_px**2 * self.hidden_size

    @property
    def projector_weights(self) -> int:
        """Of the matrix weights those of the projector."""
        return self.hidden_size * self.out_size + self.out_size**2


def read_tiles(outer: dict[str, Any], where: str, width: int) -> TileConfig:
    """The vision tower in the config of a model that reads images in tiles.

    Args:
        where: what errors call the config.
        width: of the decoder that reads the features.

    Raises:
        ValueError: missing or wrong field, or a feature the tower does not have.
    """
    reader = check(TiledReader, outer, where)
    inner = f"{where}: vision_config"
    tower = check(TileEncoder, {**_ASSUMED, **reader.vision_config}, inner)
    layer = reader.vision_feature_layer
    layer = _STACKED_LAYERS if layer is None else layer
    count = tower.num_hidden_layers
    num_layers = count + 1 + layer if layer < 0 else layer
    if not 1 <= num_layers <= count:
        raise ValueError(
            f"{where}: vision_feature_layer={layer} must name the output of one of the "
            f"{count} layers of the vision tower"
        )
    with naming(inner):
        return TileConfig(
            num_layers=num_layers,
            num_stored_layers=count,
            hidden_size=tower.hidden_size,
            intermediate_size=tower.intermediate_size,
            num_heads=tower.num_attention_heads,
            out_size=width,
            num_channels=tower.num_channels,
            patch_px=tower.patch_size,
            tile_px=tower.image_size,
            norm_eps=tower.layer_norm_eps,
            pinpoints=tuple(map(tuple, reader.image_grid_pinpoints or _PINPOINTS)),
            has_projector_bias=reader.multimodal_projector_bias is not False,
        )
