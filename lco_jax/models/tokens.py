"""The token ids that stand for media, read from a checkpoint's `config.json`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MediaTokens:
    """What a checkpoint calls its media; one id can be another token in another family."""

    image: int
    """Stands for each feature of an image."""
    video: int
    vision_start: int
    """Before an image, a video, or a video with its sound."""
    vision_end: int
    audio: int | None = None
    """None, as the next two, in families without audio."""
    audio_start: int | None = None
    audio_end: int | None = None


_SPELLINGS = {
    "image": ("image_token_id", "image_token_index"),
    "video": ("video_token_id", "video_token_index"),
    "vision_start": ("vision_start_token_id", "vision_start_token_index"),
    "vision_end": ("vision_end_token_id", "vision_end_token_index"),
}
_AUDIO_SPELLINGS = {
    "audio": ("audio_token_id", "audio_token_index"),
    "audio_start": ("audio_start_token_id", "audio_start_token_index"),
    "audio_end": ("audio_end_token_id", "audio_end_token_index"),
}


def read_media_tokens(outer: dict[str, Any], *, with_audio: bool) -> MediaTokens | None:
    """The media tokens in a config (of an Omni model: of its thinker); None if it names none.

    Raises:
        ValueError: it names some and lacks others, or gives one id to two of them.
    """
    spellings = _SPELLINGS | (_AUDIO_SPELLINGS if with_audio else {})
    found = {
        field: outer[name]
        for field, names in spellings.items()
        for name in reversed(names)
        if outer.get(name) is not None
    }
    if not found:
        return None
    missing = [names[0] for field, names in spellings.items() if field not in found]
    if missing:
        raise ValueError(
            f"config.json names some media tokens and lacks {missing}; take them from the config "
            "of the model that the checkpoint was made of"
        )
    if len(set(found.values())) < len(found):
        raise ValueError(f"config.json gives one id to two media tokens: {found}")
    return MediaTokens(**found)
