"""The token ids that stand for media, read from a checkpoint's `config.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["image", "video", "audio"]
"""Of a medium."""


@dataclass(frozen=True)
class MediaTokens:
    """What a checkpoint calls its media; one id can be another token in another family. None is
    what the family has not.
    """

    image: int
    """Stands for each feature of an image."""
    video: int | None = None
    vision_start: int | None = None
    """Before an image, a video, or a video with its audio."""
    vision_end: int | None = None
    audio: int | None = None
    audio_start: int | None = None
    audio_end: int | None = None


def read_media_tokens(
    outer: dict[str, Any], names: Sequence[str], vocab_size: int, where: str
) -> MediaTokens | None:
    """The media tokens in a config (of an Omni model: of its thinker); None if it has none.

    Args:
        names: those of `MediaTokens` that checkpoints of the family have.
        vocab_size: rows of the embedding table.
        where: what errors call the config.

    Raises:
        ValueError: it has some and lacks others, or gives one id to two of them, or two to one, or
            one beyond the table.
    """
    found = {}
    for name in names:
        ids = {
            outer[field]
            for field in (f"{name}_token_index", f"{name}_token_id")
            if outer.get(field) is not None
        }
        if len(ids) > 1:
            raise ValueError(f"{where}: {name}_token_index and {name}_token_id differ: {ids}")
        if ids:
            found[name] = ids.pop()
    if not found:
        return None
    missing = [f"{name}_token_id" for name in names if name not in found]
    if missing:
        raise ValueError(
            f"{where} names some media tokens and lacks {missing}; take them from the config "
            "of the model that the checkpoint was made of"
        )
    if len(set(found.values())) < len(found):
        raise ValueError(f"{where} gives one id to two media tokens: {found}")
    for name, token in found.items():
        if token >= vocab_size:
            raise ValueError(
                f"{where}: {name}_token_id={token} has no embedding, vocab_size is {vocab_size}"
            )
    return MediaTokens(**found)
