"""Which kind of medium a file is: by its name, or by its content."""

import contextlib
import os
import re

import av
import soundfile

from lco_jax.data.media.audio import AUDIO_CONTAINERS
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import is_animation
from lco_jax.data.media.sources import name_of, open_media
from lco_jax.models.tokens import Kind

SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys(
        (
            *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".avif"),
            *(".jp2", ".ppm", ".pgm", ".pbm"),
        ),
        "image",
    ),
    **dict.fromkeys(
        (
            *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".flv", ".mpg", ".mpeg"),
            *(".3gp", ".ogv"),
        ),
        "video",
    ),
    **dict.fromkeys(
        (
            *(".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac", ".aac", ".m4a", ".aiff", ".aif"),
            *(".wma", ".caf", ".amr"),
        ),
        "audio",
    ),
}
"""What files with these endings are. An animation is an image: its first frame, unless it is given
as a video."""

_DATA_URI = re.compile(r"data:(image|audio|video)/[\w.+-]+(?:;[\w.+=-]+)*,")
_LONGEST = max(map(len, SUFFIXES))


def kind_of_name(name: str) -> Kind | None:
    """What a file of this name is (None: the ending says nothing)."""
    ending = name[-_LONGEST:].lower()
    return SUFFIXES.get(os.path.splitext("x" + ending)[1]) if "." in ending else None


def kind_of_content(source: str | bytes) -> Kind:
    """What a file is by its content. Animations are images.

    Raises:
        MediaError: it is missing, empty, or none of the kinds.
    """
    if is_animation(source):
        return "image"
    with open_media(source) as file:
        with contextlib.suppress(soundfile.LibsndfileError):
            soundfile.SoundFile(file).close()
            return "audio"
        file.seek(0)
        options = {"format_whitelist": AUDIO_CONTAINERS}
        try:
            with av.open(file, options=options, metadata_errors="ignore") as container:
                cover = av.stream.Disposition.attached_pic
                if any(not stream.disposition & cover for stream in container.streams.video):
                    return "video"
                if container.streams.audio:
                    return "audio"
        except Exception as error:  # decoders raise many kinds of errors
            raise MediaError(f"{name_of(source)}: no image, audio or video file") from error
    raise MediaError(f"{name_of(source)}: neither image nor audio nor video is in it")


def kind_of_data_uri(address: str) -> Kind | None:
    """What the media type of a `data:` URI says (None: it is none, or of another type)."""
    found = _DATA_URI.match(address)
    return found[1] if found else None
