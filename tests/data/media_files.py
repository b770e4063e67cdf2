"""Images and videos made on the spot: intact ones to compare with, and malformed ones."""

import io
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

INTACT_SIZE = (64, 48)


def random_image(seed: int, size: tuple[int, int] = INTACT_SIZE, mode: str = "RGB") -> Image.Image:
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def animation(kind: str, num_frames: int = 6, **options: object) -> bytes:
    first, *rest = (random_image(seed) for seed in range(num_frames))
    return encode(first, kind, save_all=True, append_images=rest, **options)


def video_file(
    container: str,
    frames: Iterable[np.ndarray],
    fps: int | Fraction = 10,
    codec: str = "libx264",
    size: tuple[int, int] = INTACT_SIZE,
    **options: str,
) -> bytes:
    """An encoded video of the given frames, all of one size."""
    # A real file, because `faststart` reads it again.
    with tempfile.NamedTemporaryFile() as file:
        with av.open(file.name, "w", format=container, options=options) as output:
            stream = output.add_stream(codec, rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            output.start_encoding()
            for pixels in frames:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        return Path(file.name).read_bytes()


def noise(num_frames: int, size: tuple[int, int] = INTACT_SIZE) -> list[np.ndarray]:
    return [np.asarray(random_image(seed, size)) for seed in range(num_frames)]


def greys(levels: Iterable[int], size: tuple[int, int] = INTACT_SIZE) -> list[np.ndarray]:
    """Flat frames, so that a decoded frame says which it was."""
    return [np.full((size[1], size[0], 3), level, np.uint8) for level in levels]


def audio_only(container: str = "mp4") -> bytes:
    """A file with audio only."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream("aac", rate=16_000, layout="mono")
        samples = np.zeros((1, 1024), np.float32)
        for index in range(8):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 1024 * index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def turned(content: bytes, degrees: int) -> bytes:
    """An mp4 video whose header asks for a clockwise turn."""
    cosine, sine = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    return shown_by(content, (cosine, sine, -sine, cosine))


def shown_by(content: bytes, axes: tuple[int, int, int, int]) -> bytes:
    """An mp4 video whose header says where its horizontal and its vertical axis go."""
    a, b, c, d = (axis << 16 for axis in axes)
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    start = content.index(b"tkhd") + 44
    return content[:start] + matrix + content[start + 36 :]


# ------------------------------------------------------------------------------------- damage


def cut(content: bytes, share: float) -> bytes:
    return content[: int(share * len(content))]


def scratched(content: bytes, num_bytes: int = 40) -> bytes:
    """With bytes of the middle half overwritten."""
    rng = np.random.default_rng(0)
    pixels = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(len(content) // 4, 3 * len(content) // 4, num_bytes)
    pixels[places] = rng.integers(0, 256, num_bytes)
    return pixels.tobytes()


def png_chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def png(width: int, height: int, *chunks: bytes, rows: bytes = b"") -> bytes:
    """A PNG file of 8-bit grey whose header may promise anything."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = [png_chunk(b"IHDR", header), *chunks, png_chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + png_chunk(b"IEND", b"")


def gif_canvas(content: bytes, side: int) -> bytes:
    """A GIF file whose canvas is declared to be a square of `side` pixels."""
    return content[:6] + struct.pack("<HH", side, side) + content[10:]


def scratched_exif(seed: int) -> bytes:
    """An EXIF block that asks for a quarter turn, with some bytes overwritten."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x8769] = 6, "maker", {0x9000: b"0220"}
    block = bytearray(exif.tobytes())
    rng = np.random.default_rng(seed)
    for place in rng.integers(6, len(block), 5):
        block[place] = rng.integers(0, 256)
    return bytes(block)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"

_UNKNOWN = "no image of a known format"
_UNDECODABLE = "the image cannot be decoded"
_Make = Callable[[], bytes]

BAD_IMAGES: dict[str, tuple[_Make, str]] = {
    "empty.png": (lambda: b"", "the file is empty"),
    "text.png": (lambda: b"no image at all\n", _UNKNOWN),
    "page.jpg": (lambda: b"<!DOCTYPE html><html>404 Not Found</html>", _UNKNOWN),
    "drawing.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", _UNKNOWN),
    "drawing.svg": (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", _UNKNOWN),
    "noise.jpg": (lambda: np.random.default_rng(0).bytes(4096), _UNKNOWN),
    "video.png": (lambda: video_file("mp4", noise(3)), _UNKNOWN),
    "start.png": (lambda: encode(random_image(0), "PNG")[:10], _UNKNOWN),
    "cut.png": (lambda: cut(encode(random_image(0), "PNG"), 0.5), _UNDECODABLE),
    "cut.jpg": (lambda: cut(encode(random_image(0), "JPEG"), 0.5), _UNDECODABLE),
    "cut.webp": (lambda: cut(encode(random_image(0), "WEBP"), 0.5), _UNDECODABLE),
    "cut.gif": (lambda: cut(encode(random_image(0), "GIF"), 0.5), _UNDECODABLE),
    "cut.bmp": (lambda: cut(encode(random_image(0), "BMP"), 0.5), _UNDECODABLE),
    "cut.jp2": (lambda: cut(encode(random_image(0), "JPEG2000"), 0.5), _UNDECODABLE),
    "cut.ppm": (lambda: cut(encode(random_image(0), "PPM"), 0.5), _UNDECODABLE),
    "cut.avif": (lambda: cut(encode(random_image(0), "AVIF"), 0.5), _UNKNOWN),
    "cut.tif": (lambda: cut(encode(random_image(0), "TIFF"), 0.5), _UNDECODABLE),
    "scratched.png": (lambda: scratched(encode(random_image(0), "PNG")), _UNDECODABLE),
    "no_pixels.png": (lambda: png(9, 9), _UNDECODABLE),
    "no_width.png": (lambda: png(0, 9), _UNKNOWN),
    "bomb.png": (lambda: png(60_000, 60_000), "exceeds limit of"),
    "large.png": (lambda: png(10_000, 9_000), "more than max_pixels=89478485"),
    "bomb.gif": (lambda: gif_canvas(encode(random_image(0), "GIF"), 65_535), "exceeds limit of"),
    "bomb_text.png": (
        lambda: png(9, 9, png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))),
        "MAX_TEXT_CHUNK",
    ),
    "thin.png": (lambda: encode(random_image(0, (1, 201)), "PNG"), "at most 200 to 1"),
    "float.tif": (lambda: encode(Image.new("F", (9, 9), 0.5), "TIFF"), "no fixed range"),
    "wide_integers.tif": (
        lambda: encode(Image.fromarray(np.full((9, 9), 2**20, np.int32)), "TIFF"),
        "no fixed range",
    ),
}
"""What each file holds, and what the error must say of it."""

_NO_VIDEO = "the video cannot be decoded"

BAD_VIDEOS: dict[str, tuple[_Make, str]] = {
    "empty.mp4": (lambda: b"", "the file is empty"),
    "text.mp4": (lambda: b"no video at all\n", _NO_VIDEO),
    "noise.webm": (lambda: np.random.default_rng(0).bytes(4096), _NO_VIDEO),
    "still.mp4": (lambda: encode(random_image(0), "JPEG"), "give a still image as an image"),
    "audio.mp4": (audio_only, "has audio but no video"),
    "no_index.mp4": (lambda: cut(video_file("mp4", noise(25)), 0.9), _NO_VIDEO),
    "cut.mp4": (lambda: cut(video_file("mp4", noise(25), movflags="faststart"), 0.9), _NO_VIDEO),
    "cut.mkv": (
        lambda: cut(video_file("matroska", noise(25)), 0.6),
        "of 2.5 seconds, so it is trunc",
    ),
    "cut.webm": (
        lambda: cut(video_file("webm", noise(25), codec="libvpx-vp9"), 0.6),
        "of 2.5 seconds, so it is trunc",
    ),
    "cut.avi": (
        lambda: cut(video_file("avi", noise(25), codec="mpeg4"), 0.6),
        "so it is truncated",
    ),
    "cut.gif": (lambda: cut(animation("GIF"), 0.7), _NO_VIDEO),
    "cut.webp": (lambda: cut(animation("WEBP"), 0.7), _NO_VIDEO),
    "cut_animated.png": (lambda: cut(animation("PNG"), 0.7), _NO_VIDEO),
    # Which of them depends on how far FFmpeg's threads have come.
    "scratched.mp4": (
        lambda: scratched(video_file("mp4", noise(25))),
        "frame .* is damaged|cannot be decoded",
    ),
    "scratched.avi": (
        lambda: scratched(video_file("avi", noise(25), codec="mpeg4")),
        "frame .* is damaged",
    ),
    "no_frames.mp4": (lambda: video_file("mp4", [], movflags="empty_moov"), "has no frames"),
    "thin.mp4": (lambda: video_file("mp4", noise(3, (2, 402)), size=(2, 402)), "at most 200 to 1"),
    "bomb.gif": (lambda: gif_canvas(animation("GIF"), 65_535), "exceeds limit of"),
}
