"""From an item to what the model reads: media, tokens and positions."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int32

from lco_jax.config import MediaConfig
from lco_jax.config_io import to_json
from lco_jax.data.encoded import Encoded, Kind, Medium, Picture, Sound
from lco_jax.data.media.config import PixelConfig, VideoConfig, from_hf
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import image_patches, load_image
from lco_jax.data.media.video import load_video, seconds_per_grid, video_patches
from lco_jax.data.positions import Grid, mrope_ids
from lco_jax.data.prompt import Prompter
from lco_jax.data.records import Item, MediaSource
from lco_jax.models.config import ModelConfig


class Processor:
    """Reads the media of items, and turns items into tokens.

    Args:
        folder: hub folder of the checkpoint: tokenizer, chat template, pixel statistics.
        config: of the model; decides which kinds of media it reads.
        media: sizes and rates.
        profile: prompt recipe.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).

    Raises:
        ValueError: the folder's tokenizer, template or settings cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: ModelConfig,
        *,
        media: MediaConfig | None = None,
        profile: Literal["lco", "mteb"] = "lco",
        max_text_tokens: int | None = None,
    ):
        media = media or MediaConfig()
        kinds: dict[Kind, int] = {}
        if config.media_tokens is not None and config.vision is not None:
            kinds |= {"image": config.media_tokens.image, "video": config.media_tokens.video}
        self.config, self.media = config, media
        self._is_omni = "omni" in config.family
        self.prompter = Prompter(folder, profile, max_text_tokens, tuple(kinds))
        self.kinds: tuple[Kind, ...] = tuple(self.prompter.markup)
        """Of media that items may have."""
        self._placeholders = {kinds[kind]: kind for kind in self.kinds}
        self._image, self._video = _pixel_configs(Path(folder), config, media)
        self._pool = ThreadPoolExecutor(thread_name_prefix="media")

    @property
    def head(self) -> Int32[np.ndarray, "P"]:
        """The tokens with which every item begins."""
        return self.prompter.head

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """Tokens, positions and media of each item.

        Raises:
            ValueError: an item is empty, or has media that the model does not read.
            MediaError: a medium cannot be used; the message names the file.
        """
        encoded = self.try_encode(items)
        for found in encoded:
            if isinstance(found, ValueError):
                raise found
        return encoded

    def try_encode(self, items: Sequence[Item]) -> list[Encoded | ValueError]:
        """As `encode`, with the error in the place of an item that cannot be encoded."""
        # Texts need no thread: starting work there costs more than looking at them.
        read = self._pool.map if any(item.has_media for item in items) else map
        media = list(read(self._read_media, items))
        good = [item for item, own in zip(items, media, strict=True) if isinstance(own, list)]
        encoded = iter(self.prompter.encode(good))
        return [
            self._expand(item, next(encoded), own) if isinstance(own, list) else own
            for item, own in zip(items, media, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {**self.prompter.describe(), "media": to_json(self.media)}

    def _read_media(self, item: Item) -> list[Picture | Sound] | ValueError:
        try:
            self.prompter.check(item)
            return [self._read(*medium) for medium in self.prompter.ordered_media(item)]
        except MediaError as error:
            return error if item.id is None else MediaError(f"item {item.id}: {error}")
        except ValueError as error:
            return error

    def _read(self, kind: Kind, source: MediaSource) -> Picture | Sound:
        match kind:
            case "image":
                patches = image_patches(load_image(source), self._image)
                return Picture(patches.values, Grid(*patches.grid))
            case "video":
                clip = load_video(source, self._video)
                patches = video_patches(clip, self._video)
                # Omni goes by the rate that was asked for, VL by that of the clip.
                seconds = seconds_per_grid(clip, self._video)
                if self._is_omni:
                    seconds = self._video.pixels.temporal_patch_size / self._video.fps
                return Picture(patches.values, Grid(*patches.grid, seconds))
        raise ValueError(f"no reader of {kind}")

    def _expand(
        self, item: Item, encoded: Encoded, media: list[Picture | Sound]
    ) -> Encoded | ValueError:
        """As many tokens for each medium as it has features, and the positions of all."""
        if not media:
            return encoded
        ids = encoded.tokens.tolist()
        found = [index for index, token in enumerate(ids) if token in self._placeholders]
        if len(found) != len(media):
            return ValueError(
                f"item {item.id or item.text!r}: its prompt has {len(found)} tokens that stand for "
                f"media, and it has {len(media)} media; remove such tokens from the text"
            )
        parts: list[int | Grid] = []
        tokens: list[int] = []
        placed = []
        digest = hashlib.blake2b(encoded.hash.tobytes(), digest_size=8)
        start = 0
        for index, medium in zip(found, media, strict=True):
            count = _num_features(medium, self.config)
            parts += [index - start, medium.grid if isinstance(medium, Picture) else count]
            tokens += ids[start:index]
            placed.append(Medium(medium, np.arange(len(tokens), len(tokens) + count)))
            tokens += [ids[index]] * count
            start = index + 1
            for array in medium[:1]:
                digest.update(np.ascontiguousarray(array).data)
        parts.append(len(ids) - start)
        tokens += ids[start:]
        after_video = "last" if self._is_omni else self.media.after_video
        positions = mrope_ids(parts, self.config.vision, after_video=after_video)
        return Encoded(
            np.array(tokens, np.int32),
            np.uint64(int.from_bytes(digest.digest(), "big")),
            positions,
            tuple(placed),
        )


def _num_features(medium: Picture | Sound, config: ModelConfig) -> int:
    if isinstance(medium, Picture):
        return len(medium.patches) // config.vision.unit_patches
    raise NotImplementedError


def _pixel_configs(
    folder: Path, config: ModelConfig, media: MediaConfig
) -> tuple[PixelConfig, VideoConfig]:
    """What the checkpoint says of pixels, with the sizes of the run."""
    file = folder / "preprocessor_config.json"
    said = json.loads(file.read_text()) if file.exists() else {}
    sizes = {}
    if config.vision is not None:
        sizes = {
            "patch_size": config.vision.patch_px,
            "merge_size": config.vision.merge_size,
            "temporal_patch_size": config.vision.frames_per_patch,
        }
    said = {name: value for name, value in said.items() if name in ("image_mean", "image_std")}
    image, frame = (
        from_hf({**said, **sizes, "min_pixels": least, "max_pixels": most})
        for least, most in (
            (media.image_min_pixels, media.image_max_pixels),
            (media.video_min_pixels, media.video_max_pixels),
        )
    )
    video = VideoConfig(
        fps=media.video_fps,
        max_frames=media.video_max_frames,
        pixels=frame,
        max_total_pixels=media.video_max_total_pixels,
    )
    return image, video
