"""How the tokens of a video and of its audio take turns."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Turns(NamedTuple):
    """The tokens of a video and of its audio in the order in which the decoder reads them."""

    ids: Int[np.ndarray, "n 3"]
    """Time, height and width, from 0."""
    is_video: Bool[np.ndarray, "n"]
    """Which tokens stand for the video, in its own order; the others stand for the audio."""
    length: int
    """Behind the largest id of the last turn, which may be smaller than one of an earlier turn."""


def take_turns(
    video_ids: Int[np.ndarray, "v 3"], num_audio_tokens: int, ids_per_turn: int
) -> Turns:
    """A turn of the video, one of the audio, and so on; when one has run out the other goes on.

    A turn ends where time reaches the next multiple of `ids_per_turn`. But no token ends two
    turns: where time jumps further than that, turns of a single token follow until the count of
    turns has caught up.

    Source: transformers Qwen2_5OmniProcessor.replace_video_token and get_rope_index of
    Qwen2_5OmniPreTrainedModelForConditionalGeneration.
    """
    audio_ids = np.repeat(np.arange(num_audio_tokens)[:, None], 3, axis=1)
    streams = [(True, video_ids), (False, audio_ids)]
    turns = sorted(
        (
            (number, not is_video, piece)
            for is_video, ids in streams
            for number, piece in enumerate(_cut(ids, ids_per_turn))
        ),
        key=lambda turn: turn[:2],
    )
    return Turns(
        ids=np.concatenate([piece for *_, piece in turns]),
        is_video=np.repeat([not is_audio for _, is_audio, _ in turns], [len(p) for *_, p in turns]),
        length=int(turns[-1][-1].max()) + 1,
    )


def _cut(ids: Int[np.ndarray, "n 3"], ids_per_turn: int) -> list[Int[np.ndarray, "m 3"]]:
    """The turns of one stream."""
    ends = []
    for index, time in enumerate(ids[:, 0].tolist()):
        if time >= (len(ends) + 1) * ids_per_turn:
            ends.append(index)
    return np.split(ids, ends)
