"""The frames of videos, one at a time: containers through PyAV, animated images through Pillow."""

import contextlib
import io
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import av
from PIL import Image

from lco_jax.data.media.config import MediaLimits
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import check_size, load_image, to_rgb
from lco_jax.data.media.sources import Frames

_ANIMATED = ("GIF", "PNG", "WEBP")
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,asf,ogg"
"""FFmpeg's names. Playlists and the like are left out: they make it open other files and hosts."""

_COVER = av.stream.Disposition.attached_pic
_DEFAULT_FRAME_MS = 100
"""How long a frame is shown that does not say it; browsers do the same."""

_TURNS = {
    90: Image.Transpose.ROTATE_90,
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_270,
}


class Footage(NamedTuple):
    """A video before its frames are decoded."""

    num_frames: int
    """As the file counts them; some codecs also count frames that are never shown."""
    fps: float
    """Mean over the video."""
    frames: Callable[[Collection[int]], Iterator[Image.Image | None]]
    """Decodes from the start: upright RGB for frames of these numbers, None for the others.

    Raises:
        MediaError: a frame is damaged or too large.
    """


def read_footage(file: io.BufferedIOBase, name: str, limits: MediaLimits) -> Footage:
    """The footage of a video or an animated image; `name` is what errors call it.

    Raises:
        MediaError: no video of a known format, no frames, truncated, damaged or over the limits.
    """
    with _naming(name):
        try:
            image = Image.open(file, formats=_ANIMATED)
        except Image.UnidentifiedImageError:
            return _read_container(file, name, limits)
        return _read_animation(image, name, limits)


def read_frames(source: Frames, default_fps: float, limits: MediaLimits) -> Footage:
    """The footage of frames in memory.

    Args:
        default_fps: of frames that do not say their rate.

    Raises:
        MediaError: too many frames, or (while they are decoded) of different sizes.
    """
    _check_num_frames(source.name, len(source.images), limits)

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        size = None
        for index, given in enumerate(source.images):
            if index not in wanted:
                yield None
                continue
            image = load_image(given, limits)
            size = size or image.size
            if image.size != size:
                raise MediaError(
                    f"{source.name}: frame {index} has {image.width} x {image.height} pixels, "
                    f"others have {size[0]} x {size[1]}; give all frames one size"
                )
            yield image

    return Footage(len(source.images), source.fps or default_fps, frames)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Exception as error:  # decoders raise many kinds of errors on damaged data
        raise MediaError(
            f"{name}: the video cannot be decoded ({type(error).__name__}: {error}); it may be "
            "truncated, damaged or no video: copy it again, convert it to mp4, or give a still "
            "image as an image"
        ) from error


def _check_num_frames(name: str, num_frames: int, limits: MediaLimits) -> None:
    if num_frames > limits.max_file_frames:
        raise MediaError(
            f"{name}: more than max_file_frames={limits.max_file_frames} frames; cut it into "
            "pieces, or raise the limit"
        )


# ------------------------------------------------------------------------------------- containers


def _read_container(file: io.BufferedIOBase, name: str, limits: MediaLimits) -> Footage:
    with _open_container(file) as container:
        # Audio files carry their cover as a video stream.
        videos = [s for s in container.streams.video if not s.disposition & _COVER]
        if not videos:
            kinds = " and ".join(sorted({stream.type for stream in container.streams}))
            raise MediaError(f"{name}: has {kinds or 'no streams'} but no video; correct the path")
        stream = videos[0]
        check_size(name, stream.codec_context.width, stream.codec_context.height, limits)
        number = stream.index
        num_frames, end_s = _survey(container, number, name, limits)
        declared_s = (container.duration or 0) / av.time_base
        fps = float(stream.average_rate or 0) or num_frames / (end_s or _DEFAULT_FRAME_MS / 1000)
    # Slack for rounding, lists of edits, and the last frame, whose duration may be unknown.
    if end_s + 1 / fps + 0.2 < 0.95 * declared_s:
        raise MediaError(
            f"{name}: ends after {end_s:.1f} of {declared_s:.1f} seconds, so it is truncated; "
            "copy or download it again"
        )

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        with _naming(name), _open_container(file) as container:
            for index, frame in enumerate(container.decode(container.streams[number])):
                if frame.is_corrupt:
                    raise MediaError(
                        f"{name}: frame {index} is damaged; copy the file again, or cut it out"
                    )
                check_size(name, frame.width, frame.height, limits)
                yield _upright(frame) if index in wanted else None

    return Footage(num_frames, fps, frames)


def _open_container(file: io.BufferedIOBase) -> av.container.InputContainer:
    file.seek(0)
    return av.open(file, options={"format_whitelist": CONTAINERS}, metadata_errors="ignore")


def _survey(
    container: av.container.InputContainer, index: int, name: str, limits: MediaLimits
) -> tuple[int, float]:
    """The frames of stream `index`, and when the last packet of any ends; nothing is decoded."""
    num_frames, end_s = 0, 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        # The packets that end a stream are empty.
        num_frames += packet.stream_index == index and packet.size > 0
        _check_num_frames(name, num_frames, limits)
    if not num_frames:
        raise MediaError(f"{name}: its video has no frames; export it again, or drop the record")
    return num_frames, end_s


def _upright(frame: av.VideoFrame) -> Image.Image:
    """In RGB, turned as the container says (telephones record sideways)."""
    turn = _TURNS.get(frame.rotation % 360)
    return frame.to_image() if turn is None else frame.to_image().transpose(turn)


# ------------------------------------------------------------------------------- animated images


def _read_animation(image: Image.Image, name: str, limits: MediaLimits) -> Footage:
    check_size(name, *image.size, limits)
    num_frames = getattr(image, "n_frames", 1)
    _check_num_frames(name, num_frames, limits)
    duration_ms = sum(_duration_ms(image, index) for index in range(num_frames))

    def frames(wanted: Collection[int]) -> Iterator[Image.Image | None]:
        with _naming(name):
            for index in range(num_frames):
                image.seek(index)
                yield to_rgb(image) if index in wanted else None

    return Footage(num_frames, num_frames / duration_ms * 1000, frames)


def _duration_ms(image: Image.Image, index: int) -> float:
    image.seek(index)
    image.load()  # WebP tells the duration only then
    return float(image.info.get("duration") or _DEFAULT_FRAME_MS)
