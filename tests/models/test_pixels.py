"""Pixels that travel as bytes are, on the device, those that transformers computes on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from lco_jax.config import MediaConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.config import PixelConfig
from lco_jax.data.media.images import image_patches
from lco_jax.data.media.patches import patchify
from lco_jax.data.pack.media_batch import MediaPacker, MediaShape
from lco_jax.data.records import Item
from lco_jax.models.config import read_config
from lco_jax.models.pixels import normalised
from lco_jax.runtime.buffers import empty_array, reusing_memory
from tests import tiny
from tests.data.media_files import encode, random_image
from tests.patches import pixels_of


def on_device(patches, frames=2):
    return np.asarray(normalised(patches.levels[None], patches.statistics[None], frames, 14 * 14))


@pytest.mark.parametrize(
    "statistics", [{}, {"mean": (0.1, 0.9, 0.0), "std": (0.5, 0.4, 1.0)}], ids=["CLIP", "other"]
)
def test_images_equal_those_of_transformers(statistics):
    image = random_image(0, (140, 84))
    patches = image_patches(image, PixelConfig(**statistics))
    names = {"mean": "image_mean", "std": "image_std"}
    theirs = Qwen2VLImageProcessorPil(**{names[k]: v for k, v in statistics.items()})
    expected = theirs(image, return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(on_device(patches)[0], expected, atol=1e-6)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_frames_are_those_of_the_host(num_frames):
    rng = np.random.default_rng(num_frames)
    frames = rng.integers(0, 256, (num_frames, 28, 56, 3), dtype=np.uint8)
    patches = patchify(frames, PixelConfig())
    assert patches.levels.shape[1] == 3 * 14 * 14 * (1 if num_frames == 1 else 2)
    np.testing.assert_allclose(on_device(patches)[0], pixels_of(patches), atol=1e-6)


def test_every_shard_has_its_own_statistics():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"))
    levels = np.random.default_rng(0).integers(0, 256, (4, 8, 3 * 196), dtype=np.uint8)
    statistics = np.random.default_rng(1).uniform(0.2, 0.8, (4, 2, 3)).astype(np.float32)
    pairs = zip(levels, statistics, strict=True)
    expected = np.concatenate([normalised(x[None], s[None], 2, 196) for x, s in pairs])
    with jax.set_mesh(mesh):
        spec = jax.P(("data", "fsdp"))
        arguments = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x in (levels, statistics)]
        found = jax.jit(normalised, static_argnums=(2, 3))(*arguments, 2, 196)
        assert found.sharding.spec[0] == ("data", "fsdp")
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tiny.write(tmp_path_factory.mktemp("model"), "qwen2_5_vl").folder
    media = MediaConfig(image_min_pixels=28 * 28, video_min_pixels=28 * 28)
    return Processor(folder, read_config(folder), media=media)


def pack(processor, items):
    packer = MediaPacker(processor.config, (128,))
    shards = [processor.encode(own) for own in items]
    shape = packer.choose_shape(packer.measure(shards))
    starts = [[512 * number] for number in range(len(shards))]
    return shape, packer.fill(shards, starts, shape, (1, len(shards), 512))


def test_images_travel_as_one_frame_of_bytes_and_beside_videos_as_two(processor):
    rng = np.random.default_rng(0)
    image = Item(images=(encode(random_image(0, (84, 56)), "PNG"),))
    frames = [Image.fromarray(x) for x in rng.integers(0, 256, (4, 28, 28, 3), dtype=np.uint8)]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100)
    shape, alone = pack(processor, [[image]])
    assert shape == MediaShape(128, 1, 0, 0, 1)
    assert alone.vision.patches.dtype == np.uint8 and alone.vision.patches.shape[-1] == 3 * 196
    shape, beside = pack(processor, [[image], [Item(videos=(content,))]])
    assert shape.patch_frames == 2 and beside.vision.patches.shape[-1] == 3 * 196 * 2
    found = [
        normalised(jnp.asarray(batch.vision.patches[0]), batch.vision.statistics[0], 2, 196)[0]
        for batch in (alone, beside)
    ]
    np.testing.assert_array_equal(*found)


def test_batches_in_memory_that_was_used_before_are_the_same(processor):
    """What lies between the images of a budget is zero, whatever was there."""
    packer = MediaPacker(processor.config, (128,))
    content = encode(random_image(0, (112, 224)), "PNG")
    shards = [processor.encode([Item(images=(content,))]), []]
    shape = packer.choose_shape(packer.measure(shards))._replace(patch_rows=8)

    def fill():
        return packer.fill(shards, [[0], []], shape, (1, 2, 512))

    expected = fill()
    pixels = shards[0][0].media[0].content.patches
    assert np.count_nonzero(expected.vision.patches) == np.count_nonzero(pixels)
    with reusing_memory():
        used = empty_array(expected.vision.patches.shape, np.uint8)
        used[:] = 255
        known = used.__array_interface__["data"]
        del used
        found = fill()
        assert found.vision.patches.__array_interface__["data"] == known
        jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_images_of_other_shapes_are_other_items(processor):
    """They would count as duplicates otherwise, which are no negatives of each other."""
    sizes = ((28, 56), (56, 28), (28, 28))
    white = [Item(images=(encode(Image.new("RGB", size, "white"), "PNG"),)) for size in sizes]
    hashes = {encoded.hash for encoded in processor.encode([*white, white[0]])}
    assert len(hashes) == 3
