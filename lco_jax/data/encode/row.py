"""The tokens and positions of one item, put together from text and media."""

from collections.abc import Callable, Sequence

import numpy as np
import xxhash
from jaxtyping import Int32, Int64

from lco_jax.data.encode.encoded import Audio, Content, Encoded, Known, Medium, Visual
from lco_jax.data.encode.positions import AudioVideo, Grid, mrope_ids, video_turns
from lco_jax.data.media.mel import num_audio_tokens
from lco_jax.models.config import ModelConfig
from lco_jax.models.families import AfterVideo

TokensOf = Callable[[Sequence[str]], list[list[int]]]


class Row:
    """An item whose media each become as many tokens as they have features.

    Args:
        tokens: of the item, one for each medium.
        tokens_of: gives those of texts.
    """

    def __init__(self, config: ModelConfig, tokens: Int32[np.ndarray, "S"], tokens_of: TokensOf):
        self._config, self._given = config, tokens
        self._tokens_of = tokens_of
        self._start = self._count = 0
        self._tokens: list[np.ndarray] = []
        self._parts: list[int | Grid | AudioVideo] = []
        self._media: list[Medium] = []

    def add_text(self, stop: int) -> None:
        """The given tokens up to index `stop`, from behind the last medium on."""
        self._parts.append(stop - self._start)
        self._add(self._given[self._start : stop])
        self._start = stop

    def add_medium(self, content: Content) -> None:
        """A medium, for which the next given token stands."""
        grid = None if isinstance(content, Audio) else content.grid
        if grid is not None and grid.times:
            self._add_frames(content)
            return
        count = num_features(content, self._config)
        self._parts.append((self._config.text.mrope_section and grid) or count)
        places = self._add(np.full(count, self._given[self._start]))
        self._media.append(Medium(content, places))
        self._start += 1

    def _add(self, tokens: Sequence[int] | Int32[np.ndarray, "n"]) -> Int64[np.ndarray, "n"]:
        """Some tokens more; and their places in the item."""
        self._tokens.append(np.asarray(tokens, np.int32))
        first = self._count
        self._count += len(tokens)
        return np.arange(first, self._count)

    def _add_frames(self, video: Visual | Known) -> None:
        """Each temporal patch as an image, which its time precedes as text.

        Source: transformers Qwen3VLProcessor.replace_video_token.
        """
        names, grid = self._config.media_tokens, video.grid
        count = num_features(video, self._config) // grid.frames
        places = []
        for label in self._tokens_of([f"<{time:.1f} seconds>" for time in grid.times]):
            self._parts += [len(label) + 1, Grid(1, grid.rows, grid.columns), 1]
            self._add([*label, names.vision_start])
            places.append(self._add(np.full(count, self._given[self._start])))
            self._add([names.vision_end])
        self._media.append(Medium(video, np.concatenate(places)))
        self._start += 1

    def add_audio_video(self, visual: Visual | Known, audio: Audio | Known) -> None:
        """A video with its audio, for which the next given token stands. Starts and ends of the
        audio are put inside those of the video.
        """
        names = self._config.media_tokens
        num_audio_tokens = num_features(audio, self._config)
        video = AudioVideo(visual.grid, num_audio_tokens, self._config.audio.seconds_per_turn)
        is_video = video_turns(video, self._config.vision)
        # The start of vision lies in the text before, and shares its position with that of audio.
        self._parts[-1] -= 1
        self._parts.append(video)
        self._add([names.audio_start])
        places = self._add(np.where(is_video, names.video, names.audio))
        self._add([names.audio_end, names.vision_end])
        self._media.append(Medium(visual, places[is_video]))
        self._media.append(Medium(audio, places[~is_video]))
        self._start += 2

    def finish(self, encoded: Encoded, after_video: AfterVideo) -> Encoded:
        """The item that was `encoded` with one token for each medium; its hash is of its text and
        media.
        """
        digest = xxhash.xxh3_64(encoded.hash.tobytes())
        for medium in self._media:
            content = medium.content
            of_file = content.content_hash if isinstance(content, Visual) else None
            about = (content[0].shape, getattr(content, "grid", None), of_file)
            digest.update(repr(about).encode())
            if of_file is not None:
                continue
            digest.update(np.ascontiguousarray(content[0]).data)  # may be megabytes
            if isinstance(content, Visual) and content.order is not None:
                digest.update(content.order.data)
        targets = encoded.targets
        if targets is not None:  # media stand in the prompt, before all that is learned
            before = self._count - len(self._given)
            targets = np.pad(targets, (before, 0), constant_values=-1)
        return Encoded(
            np.concatenate(self._tokens),
            np.uint64(digest.intdigest()),
            mrope_ids(self._parts, self._config.vision, after_video=after_video),
            tuple(self._media),
            targets,
        )


def num_features(content: Content, config: ModelConfig) -> int:
    """How many tokens stand for a medium."""
    if isinstance(content, Known):
        return len(content.features)
    if isinstance(content, Visual):
        if content.order is not None:
            return len(content.order)
        return len(content.patches) // config.vision.unit_patches
    return int(num_audio_tokens(content.frames).sum())
