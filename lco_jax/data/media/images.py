"""Images of any kind as RGB, and as patches."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
import xxhash
from jaxtyping import UInt8, UInt32
from PIL import Image, ImageCms, ImageOps

from lco_jax.config import MediaLimits
from lco_jax.data.media.config import DEFAULT_LIMITS, MAX_ASPECT_RATIO, PixelConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.patches import Patches, patchify, patchify_words, smart_resize
from lco_jax.data.media.sources import (
    Frames,
    Pixels,
    name_of,
    open_media,
    refuse_truncated_images,
)

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Content decides, not the suffix of the file. EPS is left out: Pillow would run Ghostscript."""

_ORIENTATION = 0x0112  # EXIF tag
_MOST_HASHED_BYTES = 64 << 20


class _NoRangeError(ValueError):
    """An image whose values could mean anything."""


def load_image(source: str | bytes | Pixels, limits: MediaLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image in a file (the first, if it holds several) or in memory, upright, in RGB, on white.

    Args:
        source: an address, the content of a file, or an image of Pillow.
        limits: what is refused before it is unpacked.

    Raises:
        MediaError: missing, empty, no image, damaged, too large or too thin.
    """
    return load_hashed(source, limits)[0]


def load_hashed(
    source: str | bytes | Pixels, limits: MediaLimits = DEFAULT_LIMITS
) -> tuple[Image.Image, int | None]:
    """What `load_image` gives, and a hash of the content of the file (None: it is very large, or
    the image was in memory).

    Raises:
        MediaError: as `load_image` does.
    """
    name = name_of(source)
    if isinstance(source, Pixels):
        refuse_truncated_images()
        with source.lock, _naming(name):
            return to_rgb(_decode(source.image, name, limits)), None
    with open_media(source) as file, _naming(name):
        file.seek(0, io.SEEK_END)
        is_small = file.tell() <= _MOST_HASHED_BYTES
        file.seek(0)
        content = file.read() if is_small else None  # at once: Pillow would read piece by piece
        with Image.open(file if content is None else io.BytesIO(content), formats=FORMATS) as image:
            image = _decode(image, name, limits)
            # A copy, which `to_rgb` makes in any case, is for those whose image may change.
            is_rgb = image.mode == "RGB" and "transparency" not in image.info
            image = image if is_rgb else to_rgb(image)
    return image, None if content is None else xxhash.xxh3_64_intdigest(content)


def image_patches(image: Image.Image, config: PixelConfig) -> Patches:
    """The patches of an RGB image, resized to the bounds of `config`.

    Raises:
        ValueError: one side is more than 200 times the other.

    Source: transformers Qwen2VLImageProcessorPil.
    """
    size = smart_resize(
        image.height, image.width, config.unit_px, config.min_pixels, config.max_pixels
    )
    image = _resized(image, *size)
    words = _words(image)
    if words is None:
        return patchify(np.asarray(image)[None], config)
    return patchify_words(words, config)


def resize(image: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "Y X 3"]:
    """The bytes of an RGB image at another size, by Pillow's bicubic filter."""
    return np.asarray(_resized(image, height, width))


def _resized(image: Image.Image, height: int, width: int) -> Image.Image:
    if image.size == (width, height):  # Pillow would copy it
        return image
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _words(image: Image.Image) -> UInt32[np.ndarray, "Y X"] | None:
    """The pixels of an RGB image in the memory of Pillow; None if it is in several pieces, as that
    of very large images is.
    """
    import pyarrow  # which only images need

    try:
        pixels = pyarrow.array(image)  # lent, not copied
    except ValueError:
        return None
    levels = pixels.values.to_numpy(zero_copy_only=True)
    return levels.view("<u4").reshape(image.height, image.width)


def encode_image(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    """The content of a file that holds an image.

    Args:
        options: what Pillow's writer of that kind takes.
    """
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB, composited on white where it is transparent.

    Raises:
        ValueError: the mode has no fixed range of values, or cannot be converted.

    Source: transformers `convert_to_rgb`; 16-bit greyscale is ours (Pillow would clip it).
    """
    if image.mode == "F" or (image.mode == "I" and not _is_16_bit(image)):
        raise _NoRangeError(f"values of mode {image.mode!r} have no fixed range; save 8 or 16 bits")
    if image.mode.startswith("I"):
        # The high byte, which is also what Pillow keeps of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "LAB":
        return ImageCms.applyTransform(image, _lab_to_rgb())
    if image.mode in ("La", "RGBa"):  # premultiplied
        image = image.convert(image.mode.upper())
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    profiles = (ImageCms.createProfile(space) for space in ("LAB", "sRGB"))
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")


def _is_16_bit(image: Image.Image) -> bool:
    lowest, highest = image.getextrema()
    return lowest >= 0 and highest < 2**16


def check_size(name: str, width: int, height: int, limits: MediaLimits) -> None:
    """Refuse an image or a frame by its declared size, before anything is unpacked.

    Raises:
        MediaError: too many pixels, or one side is more than 200 times the other.
    """
    if width * height > limits.max_pixels:
        raise MediaError(
            f"{name}: {width} x {height} pixels are more than max_pixels={limits.max_pixels}; "
            "scale it down, or raise the limit in data.media.limits if the file is trusted"
        )
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise MediaError(
            f"{name}: {width} x {height} pixels; sides must be at least 1 and at most "
            f"{MAX_ASPECT_RATIO} to 1; crop or pad it"
        )


def is_animation(source: str | bytes | Frames) -> bool:
    """Whether a video is one of images alone, with no room for audio: frames in memory, or a file
    that Pillow reads."""
    if isinstance(source, Frames):
        return True
    with open_media(source) as file:
        try:
            Image.open(file, formats=FORMATS).close()
        except Exception:  # of as many kinds as there are formats
            return False
        return True


def _decode(image: Image.Image, name: str, limits: MediaLimits) -> Image.Image:
    """The image upright, of whatever mode."""
    check_size(name, *image.size, limits)
    image.load()
    return _upright(image)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    try:
        yield
    except MediaError:
        raise
    except Image.UnidentifiedImageError as error:
        raise MediaError(
            f"{name}: no image of a known format ({', '.join(FORMATS)}); convert it, or correct "
            "the path in the record"
        ) from error
    except _NoRangeError as error:
        raise MediaError(f"{name}: {error}") from error
    except Image.DecompressionBombError as error:
        raise MediaError(f"{name}: {error}; scale it down") from error
    # Pillow's decoders raise many kinds of errors on damaged data (SyntaxError, struct.error, ...).
    except Exception as error:
        raise MediaError(
            f"{name}: the image cannot be decoded ({type(error).__name__}: {error}); it may be "
            "truncated or damaged: copy it again, or save it anew"
        ) from error


def _upright(image: Image.Image) -> Image.Image:
    """Rotated or mirrored as its EXIF block says; a damaged block says nothing."""
    try:
        if image.getexif().get(_ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # parsers of EXIF raise as many kinds; the pixels are sound all the same
        return image
