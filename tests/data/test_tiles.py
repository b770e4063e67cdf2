"""Images in tiles: pixels, tokens and the features they take, against transformers."""

import io
import json

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from transformers import LlavaNextConfig
from transformers.models.llava_next.modeling_llava_next import LlavaNextModel

from lco_jax.config import MediaConfig
from lco_jax.data.encode.grammar import Tiles
from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.wrapper_media import image_settings
from lco_jax.data.errors import RecordError
from lco_jax.data.media.config import PixelConfig
from lco_jax.data.media.patches import pixel_values
from lco_jax.data.media.sources import MediaOptions
from lco_jax.data.records import Item
from lco_jax.models.config import from_hf, read_config
from tests import hf_items, tiny
from tests.data.media_files import encode, random_image

SIZES = [(30, 61), (61, 30), (28, 28), (20, 90), (100, 7), (56, 57), (200, 199), (1, 3), (84, 27)]
"""Width and height: grids of every pinpoint, both ways of padding, even and odd."""
PUBLIC_TOWER = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
ASK = "\nSummarize the above image in one word:"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("model"), "llava_next", num_layers=1).folder


@pytest.fixture(scope="module")
def processor(folder):
    return Processor(folder, read_config(folder))


@pytest.fixture(scope="module")
def theirs(folder):
    return hf_items.tiled_processor(folder)


def their_inputs(theirs, images, text):
    parts = [{"type": "image"} for _ in images] + [{"type": "text", "text": text}]
    turn = [{"role": "user", "content": parts}]
    said = theirs.apply_chat_template(turn, add_generation_prompt=True)
    return theirs(text=said, images=images or None, return_tensors="np")


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tokens_and_pixels(processor, theirs, size):
    content = encode(random_image(0, size), "PNG")
    (found,) = processor.encode([Item(images=(content,))])
    expected = their_inputs(theirs, [opened(content)], ASK)
    tokens = [*processor.head.tolist(), *found.tokens.tolist()]
    assert tokens == expected["input_ids"][0].tolist()
    ids = len(found.tokens)
    np.testing.assert_array_equal(found.positions, np.repeat(np.arange(ids)[:, None], 3, axis=1))
    (medium,) = found.media
    places = np.flatnonzero(found.tokens == processor.config.media_tokens.image)
    np.testing.assert_array_equal(medium.places, places)
    values = pixel_values(medium.content.patches, medium.content.statistics, 1, 49)
    tiles = rearrange(values, "(n y x) (c i j) -> n c (y i) (x j)", y=4, x=4, c=3, i=7, j=7)
    np.testing.assert_allclose(tiles, expected["pixel_values"][0], atol=1e-6)


def test_several_images_and_a_text(processor, theirs):
    contents = [encode(random_image(seed, SIZES[seed]), "PNG") for seed in (0, 4, 2)]
    (found,) = processor.encode([Item("a red fox", images=tuple(contents))])
    text = "a red fox\nSummarize the above in one word:"
    expected = their_inputs(theirs, [opened(content) for content in contents], text)
    tokens = [*processor.head.tolist(), *found.tokens.tolist()]
    assert tokens == expected["input_ids"][0].tolist()
    assert [len(medium.places) for medium in found.media] == [
        len(medium.content.order) for medium in found.media
    ]
    (alone,) = processor.encode([Item("a red fox")])
    expected = their_inputs(theirs, [], "a red fox\nSummarize the above text in one word:")
    assert [*processor.head.tolist(), *alone.tokens.tolist()] == expected["input_ids"][0].tolist()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_token_takes_the_feature_that_transformers_packs(folder, size):
    """Features are their own numbers here, so the packed ones tell their order."""
    config = read_config(folder).vision
    image = random_image(0, size).convert("RGB")
    found = Tiles(config).read_image(image, PixelConfig(), MediaOptions())
    model = object.__new__(LlavaNextModel)
    torch.nn.Module.__init__(model)
    model.config = LlavaNextConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 28, "patch_size": 7},
        image_grid_pinpoints=tiny.PINPOINTS,
    )
    numbers = torch.arange(len(found.patches), dtype=torch.float32)
    features = numbers.reshape(found.grid.frames, 16, 1)
    (packed,), _ = model.pack_image_features(
        [features], torch.tensor([size[::-1]]), "default", image_newline=torch.tensor([-1.0])
    )
    np.testing.assert_array_equal(found.order, packed[:, 0].numpy())


@pytest.mark.parametrize(
    ("size", "count"),
    [((336, 336), 1176), ((640, 480), 2340), ((1920, 1080), 1948), ((672, 672), 2928)],
)
def test_public_sizes(size, count):
    text = {"model_type": "llama", "vocab_size": 128320}
    outer = {"vision_config": PUBLIC_TOWER, "text_config": text, "image_token_index": 128256}
    config = from_hf({"model_type": "llava_next", **outer}).vision
    found = Tiles(config).read_image(Image.new("RGB", size), PixelConfig(), MediaOptions())
    assert len(found.order) == count
    largest = Tiles(config).largest(MediaConfig())
    assert largest == ((672, 672), (5, 24, 24, 0.0, ()), 2928)


def test_what_is_not_read_is_refused_by_name(processor):
    (found,) = processor.try_encode([Item(videos=("a.mp4",))])
    assert isinstance(found, RecordError)
    assert "has the video a.mp4, but the model reads texts and images only" in str(found)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("preprocessor_config.json", {"size": None}, "size=None, and the tiles of the model"),
        ("preprocessor_config.json", {"crop_size": 336}, "crop_size=336, and the tiles"),
        ("preprocessor_config.json", {"image_grid_pinpoints": [[28, 28]]}, "must be equal"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize=False is not supp"),
        ("preprocessor_config.json", {"aspect_ratio_setting": "pad"}, "aspect_ratio_setting="),
        ("processor_config.json", {"patch_size": 14}, "patch_size=14, and the model's is 7"),
        ("processor_config.json", {"num_additional_image_tokens": 0}, "expected 1; it counts"),
        ("processor_config.json", {"vision_feature_select_strategy": "full"}, "'default'"),
    ],
)
def test_settings_of_other_tiles_are_refused(tmp_path, folder, file, change, message):
    for name in ("config.json", "preprocessor_config.json", "processor_config.json"):
        (tmp_path / name).write_text((folder / name).read_text())
    settings = json.loads((tmp_path / file).read_text()) | change
    (tmp_path / file).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=f"{file}.*{message}"):
        image_settings(tmp_path)


def test_settings_in_one_file(tmp_path, folder):
    """As newer versions write them."""
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    images, joint = (
        json.loads((folder / name).read_text())
        for name in ("preprocessor_config.json", "processor_config.json")
    )
    mean = {"image_mean": [0.1, 0.2, 0.3]}
    file = tmp_path / "processor_config.json"
    file.write_text(json.dumps({**joint, "image_processor": {**images, **mean}}))
    assert image_settings(tmp_path)["image_mean"] == mean["image_mean"]


def test_bounds_of_an_image_are_refused(processor):
    with pytest.raises(ValueError, match="max_pixels=99: the model cuts images into tiles"):
        Tiles(processor.config.vision).read_image(
            random_image(0, (30, 30)), PixelConfig(), MediaOptions(max_pixels=99)
        )
