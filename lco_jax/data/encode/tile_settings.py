"""What the processors of a checkpoint that reads images in tiles say, checked against its model.

Source: transformers LlavaNextImageProcessor, LlavaNextProcessor.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from lco_jax.models.field_types import HeightWidth, Pixels
from lco_jax.models.json_files import Schema, check
from lco_jax.models.tile_config import TileConfig

_Values = Annotated[float, Field(ge=-1000, le=1000)]
_Deviation = Annotated[float, Field(gt=0, le=1000)]
_DEFAULT_PX = 224
"""Side of the tiles of files that do not say it."""


class _Images(Schema):
    """How images are read; what is not read must be as on the hub."""

    image_mean: Annotated[list[_Values], Field(min_length=3, max_length=3)] | None = None
    image_std: Annotated[list[_Deviation], Field(min_length=3, max_length=3)] | None = None
    size: dict[str, Pixels] | Pixels | None = None
    crop_size: dict[str, Pixels] | Pixels | None = None
    image_grid_pinpoints: list[HeightWidth] | None = None
    aspect_ratio_setting: Literal["anyres"] | None = None
    do_resize: Literal[True] | None = None
    do_center_crop: bool | None = None
    do_rescale: Literal[True] | None = None
    do_normalize: Literal[True] | None = None
    do_convert_rgb: Literal[True] | None = None
    do_pad: bool | None = None
    resample: Literal[3] | None = Field(None, description="3 is bicubic")
    rescale_factor: Annotated[float, Field(ge=0.00392, le=0.00393)] | None = None


class _Joint(Schema):
    """How images become tokens. Older files say nothing of it: the model then does it."""

    patch_size: Pixels | None = None
    vision_feature_select_strategy: Literal["default"] | None = None
    num_additional_image_tokens: Literal[1] | None = Field(
        None, description="it counts the class token, which the strategy takes away again"
    )


def check_tile_settings(
    images: Mapping[str, Any], joint: Mapping[str, Any], vision: TileConfig, where: tuple[Any, Any]
) -> None:
    """Refuse settings under which images would become other tiles or tokens than the model reads.

    Args:
        images: of the image processor; empty: the model's sizes hold.
        joint: of the processor of texts and images.
        where: what errors call both.

    Raises:
        ValueError: with file and field.
    """
    said, of_tokens = check(_Images, images, where[0]), check(_Joint, joint, where[1])
    if images:
        for name in ("size", "crop_size"):
            value = getattr(said, name)
            sides = set(value.values()) if isinstance(value, dict) else {value or _DEFAULT_PX}
            if sides != {vision.tile_px}:
                raise ValueError(
                    f"{where[0]}: {name}={value}, and the tiles of the model have image_size="
                    f"{vision.tile_px}; set it to that"
                )
    found = said.image_grid_pinpoints
    if found is not None and tuple(map(tuple, found)) != vision.pinpoints:
        raise ValueError(
            f"{where[0]}: image_grid_pinpoints={found}, and config.json has "
            f"{list(map(list, vision.pinpoints))}; they must be equal"
        )
    if of_tokens.patch_size not in (None, vision.patch_px):
        raise ValueError(
            f"{where[1]}: patch_size={of_tokens.patch_size}, and the model's is {vision.patch_px}"
        )
