"""The error that every unusable image, clip or sound ends in."""


class MediaError(ValueError):
    """A media file that cannot be used; the message names it and says what to do."""


class NoAudioError(MediaError):
    """A film that has no sound track."""
