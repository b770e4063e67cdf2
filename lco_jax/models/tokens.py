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


def read_media_tokens(outer: dict[str, Any], names: Sequence[str]) -> MediaTokens | None:
    """The media tokens in a config (of an Omni model: of its thinker); None if it has none.

    Args:
        names: those of `MediaTokens` that checkpoints of the family have.

    Raises:
        ValueError: it has some and lacks others, or gives one id to two of them.
    """
    found = {
        name: outer[f"{name}_token_{ending}"]
        for name in names
        for ending in ("index", "id")
        if outer.get(f"{name}_token_{ending}") is not None
    }
    if not found:
        return None
    missing = [f"{name}_token_id" for name in names if name not in found]
    if missing:
        raise ValueError(
            f"config.json names some media tokens and lacks {missing}; take them from the config "
            "of the model that the checkpoint was made of"
        )
    if len(set(found.values())) < len(found):
        raise ValueError(f"config.json gives one id to two media tokens: {found}")
    return MediaTokens(**found)
