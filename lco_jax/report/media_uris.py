"""Media inside a page: thumbnails and players as data URIs, up to a number of bytes."""

import base64
from dataclasses import dataclass

from lco_jax.data.errors import RecordError, belonging_to
from lco_jax.data.media.config import DEFAULT_LIMITS
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.footage import read_footage
from lco_jax.data.media.images import encode_image, load_image, name_of, open_media
from lco_jax.data.records import Item, MediaSource

_THUMBNAIL_PX = 320
_FIRST_FRAMES = range(16)
"""The first that can be shown is taken; some codecs begin with frames that cannot."""
_PLAYED = (
    (b"WAVE", 8, "wav"),
    (b"fLaC", 0, "flac"),
    (b"OggS", 0, "ogg"),
    (b"ID3", 0, "mpeg"),
    (b"\xff\xfb", 0, "mpeg"),
    (b"\xff\xf3", 0, "mpeg"),
    (b"\xff\xf1", 0, "aac"),
    (b"\xff\xf9", 0, "aac"),
    (b"ftyp", 4, "mp4"),
    (b"webm", None, "webm"),
)
"""How files begin that browsers play, at which byte (None: anywhere in the head), and as what."""
_ANIMATED = ((b"GIF8", 0, "gif"), (b"\x89PNG", 0, "png"), (b"WEBP", 8, "webp"))
"""Likewise of videos that are animated images."""
_HEAD_BYTES = 64


@dataclass(frozen=True)
class Medium:
    """What a page shows of a medium."""

    kind: str
    """`image`, `audio` or `video`."""
    picture: str | None = None
    """Data URI of an image, or of the first frame of a video."""
    player: str | None = None
    """Data URI of what a browser plays."""
    note: str = ""
    """Why something is not shown."""


class MediaUris:
    """The media of a page, of which players take up to `max_bytes` in all, the first ones first.

    Nothing that a file holds or is called gets into a page but encoded pixels and base64; what
    kind of sound or video a file is, is read from its first bytes.
    """

    def __init__(self, max_bytes: int):
        self._max_bytes, self._left = max_bytes, max_bytes
        self._known: dict[tuple[str, MediaSource], Medium] = {}

    def of(self, item: Item) -> list[Medium]:
        """What there is to show of an item."""
        sources = [("image", source) for source in item.images]
        sources += [("video", source) for source in item.videos]
        sources += [("audio", source) for source in item.audios]
        return [self._medium(kind, source) for kind, source in sources]

    def _medium(self, kind: str, source: MediaSource) -> Medium:
        if (kind, source) not in self._known:
            self._known[kind, source] = self._read(kind, source)
        return self._known[kind, source]

    def _read(self, kind: str, source: MediaSource) -> Medium:
        try:
            with belonging_to(name_of(source)):
                return self._read_known(kind, source)
        except RecordError as error:
            return Medium(kind, note=f"cannot be shown: {error}")

    def _read_known(self, kind: str, source: MediaSource) -> Medium:
        if kind == "image":
            return Medium(kind, _thumbnail(load_image(source)))
        with open_media(source) as file:
            head = file.read(_HEAD_BYTES)
        if kind == "video" and (name := _format_of(head, _ANIMATED)):
            moving, note = self._whole(source, f"image/{name}")
            return Medium(kind, moving or _first_frame(source), note=note)
        picture = _first_frame(source) if kind == "video" else None
        name = _format_of(head, _PLAYED)
        if name is None:
            return Medium(kind, picture, note="browsers do not play this kind of file")
        player, note = self._whole(source, f"{kind}/{name}")
        return Medium(kind, picture, player, note)

    def _whole(self, source: MediaSource, media_type: str) -> tuple[str | None, str]:
        """A file as a data URI, or why the page has no room for it."""
        with open_media(source) as file:
            content = file.read(self._left + 1)
        if len(content) > self._left:
            return None, f"left out: a page holds {self._max_bytes / 1e6:g} MB of audio and video"
        self._left -= len(content)
        return _data_uri(media_type, content), ""


def _thumbnail(image) -> str:
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    return _data_uri("image/webp", encode_image(image, "WEBP", quality=85))


def _first_frame(source: MediaSource) -> str:
    name = name_of(source)
    with open_media(source) as file:
        for frame in read_footage(file, name, DEFAULT_LIMITS).frames(_FIRST_FRAMES):
            if frame is not None:
                return _thumbnail(frame)
    raise MediaError(f"{name}: none of its first frames can be shown")


def _format_of(head: bytes, signatures: tuple) -> str | None:
    """What browsers call the format of a file that begins so (None: they do not know it)."""
    for signature, start, name in signatures:
        if signature in head if start is None else head[start:].startswith(signature):
            return name
    return None


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"
