"""Images of any kind as RGB, and as patches."""

import contextlib
import io
from collections.abc import Iterator

import numpy as np
from etils import epath
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps

from lco_jax.data.media.config import DEFAULT_LIMITS, MAX_ASPECT_RATIO, MediaLimits, PixelConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.patches import Patches, patchify, smart_resize

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Content decides, not the suffix of the file. EPS is left out: Pillow would run Ghostscript."""

_ORIENTATION = 0x0112  # EXIF tag


def load_image(source: str | bytes, limits: MediaLimits = DEFAULT_LIMITS) -> Image.Image:
    """The image in a file (the first, if it holds several), upright, in RGB, on white.

    Args:
        source: path, local or remote such as `gs://`, or the content of a file.
        limits: what is refused before it is unpacked.

    Raises:
        MediaError: missing, empty, no image, damaged, too large or too thin.
    """
    with open_media(source) as file:
        return _decode(file, name_of(source), limits)


def image_patches(image: Image.Image, config: PixelConfig) -> Patches:
    """The patches of an RGB image, resized to the bounds of `config`.

    Raises:
        ValueError: one side is more than 200 times the other.

    Source: transformers Qwen2VLImageProcessorPil.
    """
    size = smart_resize(
        image.height, image.width, config.unit_px, config.min_pixels, config.max_pixels
    )
    return patchify(resize(image, *size)[None], config)


def resize(image: Image.Image, height: int, width: int) -> UInt8[np.ndarray, "Y X 3"]:
    """The bytes of an RGB image at another size, by Pillow's bicubic filter."""
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


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
        raise ValueError(f"values of mode {image.mode!r} have no fixed range; save 8 or 16 bits")
    if image.mode.startswith("I"):
        # The high byte, which is also what Pillow keeps of 16-bit colour.
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


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
            "scale it down, or raise the limit if the file is trusted"
        )
    if min(width, height) < 1 or max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise MediaError(
            f"{name}: {width} x {height} pixels; sides must be at least 1 and at most "
            f"{MAX_ASPECT_RATIO} to 1; crop or pad it"
        )


def name_of(source: str | bytes) -> str:
    """What errors call a medium."""
    return source if isinstance(source, str) else f"a file of {len(source)} bytes"


@contextlib.contextmanager
def open_media(source: str | bytes) -> Iterator[io.BufferedIOBase]:
    """A media file that exists and is not empty, or its content.

    Raises:
        MediaError: it does not, cannot be read, or is empty.
    """
    name = name_of(source)
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else epath.Path(source).open("rb")
    except FileNotFoundError as error:
        raise MediaError(f"{name}: no such file; correct the path in the record") from error
    except OSError as error:
        raise MediaError(f"{name}: cannot be opened ({error.strerror or error})") from error
    with file:
        if not file.read(1):
            raise MediaError(f"{name}: the file is empty; copy or download it again")
        file.seek(0)
        # Libraries such as weasyprint have Pillow fill what is missing with grey, for all.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
        yield file


def is_animation(source: str | bytes) -> bool:
    """Whether Pillow reads the file, so that it is an image or an animation and no film."""
    with open_media(source) as file:
        try:
            Image.open(file, formats=FORMATS).close()
        except Exception:  # of as many kinds as there are formats
            return False
        return True


def _decode(file: io.BufferedIOBase, name: str, limits: MediaLimits) -> Image.Image:
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_size(name, *image.size, limits)
            image.load()
            return to_rgb(_upright(image))
    except MediaError:
        raise
    except Image.UnidentifiedImageError as error:
        raise MediaError(
            f"{name}: no image of a known format ({', '.join(FORMATS)}); convert it, or correct "
            "the path in the record"
        ) from error
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
