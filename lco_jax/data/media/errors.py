"""The error that every unusable image, video or audio file ends in."""

from lco_jax.data.errors import RecordError


class MediaError(RecordError):
    """A media file that cannot be used; the message names it and says what to do."""


class TooLongError(MediaError):
    """A recording that is longer than the settings take (`audio_when_longer=refuse`)."""


class NoAudioError(MediaError):
    """A video that has no audio track."""
