"""The tokens and positions of one item, put together from text and media."""

from collections.abc import Callable, Sequence

import numpy as np
import xxhash
from jaxtyping import Int32

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
        self._config, self._given = config, tokens.tolist()
        self._tokens_of = tokens_of
        self._start = 0
        self._tokens: list[int] = []
        self._parts: list[int | Grid | AudioVideo] = []
        self._media: list[Medium] = []

    def add_text(self, stop: int) -> None:
        """The given tokens up to index `stop`, from behind the last medium on."""
        self._parts.append(stop - self._start)
        self._tokens += self._given[self._start : stop]
        self._start = stop

    def add_medium(self, content: Content) -> None:
        """A medium, for which the next given token stands."""
        grid = None if isinstance(content, Audio) else content.grid
        if grid is not None and grid.times:
            self._add_frames(content)
            return
        count = num_features(content, self._config)
        self._parts.append((self._config.text.mrope_section and grid) or count)
        first = len(self._tokens)
        self._media.append(Medium(content, np.arange(first, first + count)))
        self._tokens += [self._given[self._start]] * count
        self._start += 1

    def _add_frames(self, video: Visual | Known) -> None:
        """Each temporal patch as an image, which its time precedes as text.

        Source: transformers Qwen3VLProcessor.replace_video_token.
        """
        names, grid = self._config.media_tokens, video.grid
        count = num_features(video, self._config) // grid.frames
        places = []
        for label in self._tokens_of([f"<{time:.1f} seconds>" for time in grid.times]):
            self._parts += [len(label) + 1, Grid(1, grid.rows, grid.columns), 1]
            self._tokens += [*label, names.vision_start]
            first = len(self._tokens)
            places.append(np.arange(first, first + count))
            self._tokens += [*[self._given[self._start]] * count, names.vision_end]
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
        first = len(self._tokens) + 1
        self._media.append(Medium(visual, first + np.flatnonzero(is_video)))
        self._media.append(Medium(audio, first + np.flatnonzero(~is_video)))
        turns = np.where(is_video, names.video, names.audio).tolist()
        self._tokens += [names.audio_start, *turns, names.audio_end, names.vision_end]
        self._start += 2

    def finish(self, encoded: Encoded, after_video: AfterVideo) -> Encoded:
        """The item that was `encoded` with one token for each medium; its hash is of its text and
        media.
        """
        digest = xxhash.xxh3_64(encoded.hash.tobytes())  # of megabytes for every image
        for medium in self._media:
            content = medium.content
            digest.update(repr((content[0].shape, getattr(content, "grid", None))).encode())
            digest.update(np.ascontiguousarray(content[0]).data)
            if isinstance(content, Visual) and content.order is not None:
                digest.update(content.order.data)
        targets = encoded.targets
        if targets is not None:  # media stand in the prompt, before all that is learned
            before = len(self._tokens) - len(self._given)
            targets = np.pad(targets, (before, 0), constant_values=-1)
        return Encoded(
            np.array(self._tokens, np.int32),
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
