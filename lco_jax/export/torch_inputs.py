"""Probes as transformers gives them to a model: its tokenizer, its processors of images and audio.

Of videos our own patches are taken, because its processor of videos needs torchvision.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int

from lco_jax.data.encode.encoded import Encoded, Visual
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import SAMPLE_RATE_HZ, MelConfig
from lco_jax.data.media.patches import pixel_values
from lco_jax.data.records import MediaSource
from lco_jax.export.probes import Probe
from lco_jax.export.processors import IMAGE_FILE
from lco_jax.models.families import Family

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_BUFFER_SECONDS = 30
"""Of silence behind short audio: transformers lays 300, on which its mel frames do not depend."""


class TorchReader:
    """Gives probes to the torch model of a folder.

    Args:
        folder: of the tokenizer and the settings of processors.
        recipe: the record of the export.
        head: the tokens with which every item begins.
    """

    def __init__(
        self,
        model: "PreTrainedModel",
        family: Family,
        tokenizer: "PreTrainedTokenizerBase",
        folder: Path,
        recipe: Mapping[str, Any],
        head: list[int],
    ):
        self._model, self._family = model, family
        self._tokenizer, self._folder = tokenizer, folder
        self._recipe, self._head = recipe, head

    def last_state(self, probe: Probe, text: str) -> Float[np.ndarray, "E"]:
        """The last token's state after the final norm.

        Args:
            text: of the probe, cut.
        """
        import torch

        media, runs = self._read_media(probe)
        turn = probe.before + text + probe.after
        tokens: list[int] = []
        for token in self._tokenizer(turn, add_special_tokens=False)["input_ids"]:
            tokens += runs[token].pop(0) if runs.get(token) else [token]
        ids = torch.tensor([tokens])
        inputs = media | self._positions(probe.encoded, ids) if media else {}
        with torch.inference_mode():
            return self._model.model(ids, **inputs).last_hidden_state[0, -1].numpy()

    def _read_media(
        self, probe: Probe
    ) -> tuple[dict[str, "torch.Tensor"], dict[int, list[list[int]]]]:
        """What the towers read, and the tokens of each medium, by the one that stands for it."""
        import torch

        config, item = self._model.config, probe.item
        found: dict[str, torch.Tensor] = {}
        runs: dict[int, list[list[int]]] = {}
        unit = getattr(config.vision_config, "spatial_merge_size", 1) ** 2 if item.has_media else 1
        if item.images:
            read = self._read_images(item.images)
            sizes = read[self._family.torch_media.image_sizes]
            found["pixel_values"] = read["pixel_values"]
            found[self._family.torch_media.image_sizes] = sizes
            in_tiles = hasattr(config, "image_grid_pinpoints")
            count = self._count_in_tiles(sizes) if in_tiles else sizes.prod(-1) // unit
            runs[config.image_token_id] = _runs(config.image_token_id, count)
        if item.videos:
            videos = _videos(probe)
            grids = torch.tensor([video.grid[:3] for video in videos])
            patches = torch.tensor(np.concatenate([self._pixel_values(video) for video in videos]))
            if name := self._family.torch_media.seconds:
                found[name] = torch.tensor([video.grid.seconds_per_frame for video in videos])
            found |= {"pixel_values_videos": patches, "video_grid_thw": grids}
            runs[config.video_token_id] = _runs(config.video_token_id, grids.prod(-1) // unit)
            if self._family.writes_times:
                runs[config.video_token_id] = [self._timed(video, unit) for video in videos]
        if item.audios:
            read = self._read_audio(item.audios)
            frames = read["attention_mask"].sum(-1)
            found["input_features"] = read["input_features"]
            found["feature_attention_mask"] = read["attention_mask"]
            count = ((frames - 1) // 2 - 1) // 2 + 1
            runs[config.audio_token_id] = _runs(config.audio_token_id, count)
        return found, runs

    def _timed(self, video: Visual, unit: int) -> list[int]:
        """The tokens of a video whose temporal patches stand behind their times."""
        config, grid = self._model.config, video.grid
        patch = [config.video_token_id] * (grid.rows * grid.columns // unit)
        patch = [config.vision_start_token_id, *patch, config.vision_end_token_id]
        tokens: list[int] = []
        for time in grid.times:
            label = self._tokenizer(f"<{time:.1f} seconds>", add_special_tokens=False)
            tokens += [*label["input_ids"], *patch]
        return tokens

    def _count_in_tiles(self, sizes: "torch.Tensor") -> Int[np.ndarray, "n"]:
        """The tokens of images of these heights and widths, as the family's processor counts."""
        import transformers

        config = self._model.config
        kind = getattr(transformers, self._family.torch_media.processor)
        processor = kind(
            self._image_processor(),
            self._tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=1,
        )
        return np.array(processor._get_num_multimodal_tokens(sizes.tolist()).num_image_tokens)

    def _pixel_values(self, video: Visual) -> Float32[np.ndarray, "P C"]:
        sizes = self._model.config.vision_config
        frames, pixels = sizes.temporal_patch_size, sizes.patch_size**2
        return pixel_values(video.patches, video.statistics, frames, pixels)

    def _image_processor(self) -> Any:
        import transformers

        kind = getattr(transformers, f"{self._family.torch_media.image_processor}Pil")
        has_settings = (self._folder / IMAGE_FILE).exists()
        return kind.from_pretrained(self._folder) if has_settings else kind()

    def _read_images(self, images: tuple[MediaSource, ...]) -> Mapping[str, "torch.Tensor"]:
        from PIL import Image

        processor, options = self._image_processor(), {}
        if self._recipe["format"] == "peft" and not hasattr(processor, "image_grid_pinpoints"):
            # The folder is that of the base model, whose sizes are not those of the run.
            media = self._recipe["media"]
            least, most = media["image_min_pixels"], media["image_max_pixels"]
            options = {"size": {"shortest_edge": least, "longest_edge": most}}
        images = [Image.open(io.BytesIO(image)) for image in images]
        return processor(images=images, return_tensors="pt", **options)

    def _read_audio(self, audio: tuple[MediaSource, ...]) -> Mapping[str, "torch.Tensor"]:
        from transformers import WhisperFeatureExtractor

        num_mels = self._model.config.audio_config.num_mel_bins
        extractor = WhisperFeatureExtractor(feature_size=num_mels, chunk_length=_BUFFER_SECONDS)
        return extractor(
            [load_audio(source, MelConfig()) for source in audio],
            sampling_rate=SAMPLE_RATE_HZ,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )

    def _positions(self, encoded: Encoded, ids: "torch.Tensor") -> dict[str, "torch.Tensor"]:
        """Ours where transformers places text after a video otherwise than the recipe; else what
        it finds them from.
        """
        import torch

        config = self._model.config
        is_video = ids == getattr(config, "video_token_id", -1)
        asked = self._recipe["media"]["after_video"]
        if is_video.any() and not self._family.torch_places_videos(asked):
            before = np.repeat(np.arange(len(self._head))[:, None], 3, axis=1)
            positions = np.concatenate([before, len(self._head) + encoded.positions])
            return {"position_ids": torch.tensor(positions.T[:, None].astype(np.int64))}
        if self._family.torch_media.needs_kinds:
            return {"mm_token_type_ids": (ids == config.image_token_id).int() + 2 * is_video.int()}
        return {"attention_mask": torch.ones_like(ids)}


def _runs(token: int, counts: "torch.Tensor | np.ndarray") -> list[list[int]]:
    return [[token] * count for count in counts.tolist()]


def _videos(probe: Probe) -> list[Visual]:
    visuals = [medium.content for medium in probe.encoded.visuals]
    return [visual for visual in visuals if visual.grid.frames > 1]
