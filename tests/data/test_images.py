"""Images: pixels equal to transformers' for every kind of file; bad files end in a named error."""

import io
import json
import random

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from transformers import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize as hf_resize

from lco_jax.config import MediaConfig, MediaLimits
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.config import PixelConfig
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.images import FORMATS, image_patches, load_image
from lco_jax.data.media.patches import patchify, patchify_words, smart_resize
from lco_jax.data.records import Item
from lco_jax.models.config import read_config
from tests import tiny
from tests.data.media_files import (
    BAD_IMAGES,
    cut,
    encode,
    png,
    png_chunk,
    random_image,
    scratched,
    scratched_exif,
)
from tests.patches import pixels_of

SMALL = PixelConfig(max_pixels=16 * 28 * 28)


def hf_processor(config: PixelConfig) -> Qwen2VLImageProcessorPil:
    size = {"shortest_edge": config.min_pixels, "longest_edge": config.max_pixels}
    return Qwen2VLImageProcessorPil(size=size)


def assert_equal_to_hf(ours: Image.Image, theirs: Image.Image, config: PixelConfig) -> None:
    expected = hf_processor(config)(theirs, return_tensors="np")
    patches = image_patches(ours, config)
    assert patches.grid == tuple(expected["image_grid_thw"][0])
    values = pixels_of(patches)
    assert values.dtype == np.float32 and 8 * patches.levels.nbytes == values.nbytes
    np.testing.assert_array_equal(values, expected["pixel_values"])  # bit for bit


# --------------------------------------------------------------------------------------- pixels


def test_smart_resize_equals_transformers():
    rng = random.Random(0)
    sides = [1, 13, 14, 15, 27, 28, 41, 42, 43, 69, 70, 71, 98, 126]  # with halves of 28
    cases = [(height, width) for height in sides for width in sides]
    cases += [(int(2 ** rng.uniform(0, 13)), int(2 ** rng.uniform(0, 13))) for _ in range(3000)]
    for height, width in cases:
        if max(height, width) > 200 * min(height, width):
            continue
        for least, most in ((3136, 1_003_520), (3136, 12_544), (784, 784), (100_352, 602_112)):
            expected = hf_resize(height, width, 28, least, most)
            assert smart_resize(height, width, 28, least, most) == expected


@pytest.mark.parametrize("seed", range(40))
def test_patches_of_random_sizes_equal_transformers(seed):
    rng = random.Random(seed)
    size = (int(2 ** rng.uniform(3, 9)), int(2 ** rng.uniform(3, 9)))
    image = random_image(seed, size)
    assert_equal_to_hf(image, image, SMALL if seed % 2 else PixelConfig())


def test_settings_of_a_checkpoint(tmp_path):
    """Statistics of pixels are the checkpoint's, sizes those of the run."""
    folder = tiny.write(tmp_path, "qwen2_5_vl").folder
    media = MediaConfig(image_max_pixels=50_176)
    content = encode(random_image(0, (300, 200)), "PNG")
    for said in ({}, {"image_std": [0.5, 0.4, 0.3], "image_mean": None, "max_pixels": 784}):
        (folder / "preprocessor_config.json").write_text(json.dumps(said))
        processor = Processor(folder, read_config(folder), media=media)
        (encoded,) = processor.encode([Item(images=(content,))])
        size = {"shortest_edge": media.image_min_pixels, "longest_edge": 50_176}
        std = {"image_std": said["image_std"]} if said else {}
        theirs = Qwen2VLImageProcessorPil(size=size, **std)(
            random_image(0, (300, 200)), return_tensors="np"
        )
        values = pixels_of(encoded.media[0].content)
        np.testing.assert_array_equal(values, theirs["pixel_values"])
    with pytest.raises(ValueError, match="0 < min_pixels <= max_pixels"):
        PixelConfig(min_pixels=10, max_pixels=9)


def test_frames_of_other_sizes_are_refused():
    for shape in ((1, 28, 30, 3), (0, 28, 28, 3), (1, 0, 28, 3)):
        with pytest.raises(ValueError, match="multiples of 28"):
            patchify(np.zeros(shape, np.uint8), SMALL)
    with pytest.raises(ValueError, match="at most 200 to 1"):
        image_patches(Image.new("RGB", (201, 1)), SMALL)


@pytest.mark.parametrize(("side", "merge"), [(14, 2), (16, 2), (7, 2), (14, 1), (16, 3)])
def test_words_of_pixels_are_cut_as_frames_are(side, merge):
    config = PixelConfig(patch_size=side, merge_size=merge)
    for rows, columns in ((1, 1), (1, 5), (7, 3)):
        size = (columns * config.unit_px, rows * config.unit_px)
        levels = np.random.default_rng(rows).integers(0, 256, (*size[::-1], 4), np.uint8)
        found = patchify_words(levels.view("<u4")[..., 0], config)
        expected = patchify(levels[None, ..., :3], config)
        assert found.grid == expected.grid and found.levels.flags.c_contiguous
        np.testing.assert_array_equal(found.levels, expected.levels)
    with pytest.raises(ValueError, match="sides that are multiples"):
        patchify_words(np.zeros((config.unit_px, config.unit_px + 1), np.uint32), config)


def test_images_in_several_pieces_of_memory():
    image = random_image(0, (2800, 2520))
    config = PixelConfig(max_pixels=image.width * image.height)
    assert_equal_to_hf(image, image, config)
    expected = patchify(np.asarray(image)[None], config)
    np.testing.assert_array_equal(image_patches(image, config).levels, expected.levels)


# ------------------------------------------------------------------------------- kinds of files


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("RGB", "PNG"),
        ("RGBA", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("P", "PNG"),
        ("RGB", "JPEG"),
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("RGBA", "WEBP"),
        ("RGB", "BMP"),
        ("RGB", "PPM"),
        ("RGB", "JPEG2000"),
        ("RGB", "AVIF"),
        ("CMYK", "TIFF"),
        ("RGBA", "TIFF"),
        ("YCbCr", "TIFF"),
        ("LAB", "TIFF"),
        ("P", "GIF"),
    ],
)
def test_modes_equal_transformers(tmp_path, mode, kind):
    image = random_image(1, mode="RGB" if mode in "1P" else mode)
    path = tmp_path / "image.dat"  # the content says what it is
    path.write_bytes(encode(image.convert(mode), kind))
    with Image.open(path) as reopened:
        assert kind in FORMATS
        assert_equal_to_hf(load_image(str(path)), reopened, SMALL)


def test_transparent_pixels_lie_on_white():
    image = random_image(2, mode="RGBA")
    pixels = np.asarray(image).astype(float)
    alpha = pixels[..., 3:] / 255
    expected = alpha * pixels[..., :3] + (1 - alpha) * 255
    ours = load_image(encode(image, "PNG"))
    assert np.abs(np.asarray(ours) - expected).max() <= 1
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([9, 9, 9, 50, 60, 70])
    for kind in ("PNG", "GIF"):
        opaque = load_image(encode(palette, kind, transparency=0))
        clear = load_image(encode(palette, kind, transparency=1))
        assert opaque.getpixel((3, 3)) == (50, 60, 70)
        assert clear.getpixel((3, 3)) == (255, 255, 255)
    grey = load_image(encode(Image.new("L", (8, 8), 77), "PNG", transparency=77))
    assert grey.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_keep_the_high_byte(kind):
    values = np.random.default_rng(3).integers(0, 2**16, (48, 64), np.uint16)
    ours = load_image(encode(Image.fromarray(values), kind))
    assert ours.mode == "RGB"
    for channel in range(3):
        np.testing.assert_array_equal(np.asarray(ours)[..., channel], values >> 8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation):
    upright = random_image(4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # The stored image is the upright one turned back: the inverse of what EXIF asks for.
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(turns[orientation]) if orientation > 1 else upright
    for kind in ("PNG", "TIFF"):
        ours = load_image(encode(stored, kind, exif=exif))
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(upright))
    jpeg = encode(stored, "JPEG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg)))
    np.testing.assert_array_equal(np.asarray(load_image(jpeg)), np.asarray(expected))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations_give_their_first_frame(kind):
    frames = [random_image(seed).quantize(16).convert("RGB") for seed in range(3)]
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(np.asarray(load_image(content)), np.asarray(frames[0]))


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (1, 5), (3, 500)])
def test_thin_images(size):
    image = load_image(encode(random_image(5, size), "PNG"))
    assert_equal_to_hf(image, image, SMALL)


def test_harmless_damage_is_read_over():
    image = random_image(6)
    expected = np.asarray(load_image(encode(image, "JPEG")))
    longer = encode(image, "JPEG") + b"\0" * 999
    np.testing.assert_array_equal(np.asarray(load_image(longer)), expected)
    without_end = encode(image, "PNG")[:-12]
    np.testing.assert_array_equal(np.asarray(load_image(without_end)), np.asarray(image))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_is_read_over():
    image = random_image(6, (16, 8))
    for seed in range(300):  # some of them make the parser of EXIF raise
        content = encode(image, "JPEG", exif=scratched_exif(seed))
        assert load_image(content).size in ((16, 8), (8, 16))


# --------------------------------------------------------------------------------- bad files


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_files_are_named(tmp_path, name):
    make, message = BAD_IMAGES[name]
    path = tmp_path / name
    path.write_bytes(make())
    with pytest.raises(MediaError, match=message) as error:
        load_image(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert ";" in str(error.value) or "copy" in str(error.value)  # and what to do


def test_truncated_files_are_refused_whatever_other_libraries_set(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as weasyprint does
    for kind in ("PNG", "JPEG"):
        with pytest.raises(MediaError, match="truncated"):
            load_image(cut(encode(random_image(7), kind), 0.5))


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(MediaError, match=r"absent.png: no such file; correct the path"):
        load_image(str(tmp_path / "absent.png"))
    with pytest.raises(MediaError, match="is a folder, and only regular files are read"):
        load_image(str(tmp_path))


def test_limits_are_checked_before_decoding():
    limits = MediaLimits(max_pixels=64 * 48 - 1)
    with pytest.raises(MediaError, match=r"\d bytes: 64 x 48 pixels are more than max_pixels=3071"):
        load_image(png(64, 48), limits)  # has no pixels to decode
    with pytest.raises(ValueError, match="limits must be positive"):
        MediaLimits(max_pixels=0)


@pytest.mark.parametrize("kind", ["AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"])
def test_any_damage_ends_in_an_image_or_the_error(kind):
    rng = random.Random(7)
    intact = encode(random_image(7), kind)
    chunk = png_chunk(b"tEXt", b"a\0b")
    files = [cut(intact, rng.random()) for _ in range(15)]
    files += [scratched(intact, num_bytes) for num_bytes in range(1, 15)]
    files += [intact[: len(intact) // 2] + chunk + intact[len(intact) // 2 :]]
    for content in files:
        try:
            assert load_image(content).size[0] > 0
        except MediaError:
            continue
