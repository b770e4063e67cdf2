"""What an item with images says, as a hash: equal for equal items, different for all others."""

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import MediaConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media import images
from lco_jax.data.media.sources import Adjusted, MediaOptions, Pixels
from lco_jax.data.records import Item
from lco_jax.models.config import read_config
from tests import tiny
from tests.data.media_files import encode, random_image

MEDIA = MediaConfig(image_min_pixels=28 * 28, image_max_pixels=9 * 28 * 28)


@pytest.fixture(scope="module")
def processor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", num_layers=1)
    return Processor(folder, read_config(folder), media=MEDIA)


def hashes_of(processor, *items):
    return [int(found.hash) for found in processor.encode(items)]


def test_a_file_has_the_hash_of_its_content(processor, tmp_path):
    content = encode(random_image(0, (80, 61)), "PNG")
    for name in ("first.png", "second.png"):
        (tmp_path / name).write_bytes(content)
    given = (content, str(tmp_path / "first.png"), str(tmp_path / "second.png"))
    assert len(set(hashes_of(processor, *(Item(images=(one,)) for one in given)))) == 1


def test_all_that_differs_counts(processor):
    first, second = (encode(random_image(seed, (80, 61)), "PNG") for seed in range(2))
    smaller = Adjusted(first, MediaOptions(max_pixels=28 * 28))
    wide, high = (encode(Image.new("RGB", size, "white"), "PNG") for size in ((56, 28), (28, 56)))
    items = [Item(images=(one,)) for one in (first, second, smaller, wide, high)]
    items += [
        Item("a fox", images=(first,)),
        Item(images=(first, second)),
        Item(images=(second, first)),
    ]
    found = hashes_of(processor, *items)
    assert len(set(found)) == len(items)
    assert found == hashes_of(processor, *items)


def test_in_memory_and_in_very_large_files_pixels_are_hashed(processor, monkeypatch):
    """Such files are not read twice, nor at once."""
    image = random_image(0, (80, 61))
    other = Image.fromarray(255 - np.asarray(image))
    in_memory = hashes_of(processor, *(Item(images=(Pixels(one),)) for one in (image, other)))
    monkeypatch.setattr(images, "_MOST_HASHED_BYTES", 100)
    in_files = hashes_of(processor, *(Item(images=(encode(one, "PNG"),)) for one in (image, other)))
    assert in_memory == in_files and len(set(in_files)) == 2
