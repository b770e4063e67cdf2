"""The profile of E5-V against mteb's wrapper of it."""

import io

import numpy as np
import pytest
import torch
from mteb.models.model_implementations.e5_v import E5VModel
from PIL import Image

from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.errors import RecordError
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import tiny
from tests.data.media_files import encode, random_image

TEXTS = ["a small cat", "Die Würde 東京 😀", " the quick  brown fox\njumps", "7", "\n\na"]
IMAGES = [encode(random_image(seed, size), "PNG") for seed, size in enumerate([(40, 90), (61, 28)])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("model"), "llava_next", num_layers=2).folder


@pytest.fixture(scope="module")
def ours(folder):
    return Embedder(folder, profile="e5-v", dtype="float32")


@pytest.fixture(scope="module")
def theirs(folder):
    return E5VModel(str(folder), revision=None, device="cpu", dtype=torch.float32)


def vector(theirs, prompt, *images):
    """As the wrapper does it, one item at a time; newer processors take texts by name."""
    opened = [Image.open(io.BytesIO(content)) for content in images]
    inputs = theirs.processor(text=prompt, images=opened or None, return_tensors="pt")
    with torch.no_grad():
        state = theirs.model(**inputs, output_hidden_states=True).hidden_states[-1][0, -1]
    return torch.nn.functional.normalize(state, dim=0).numpy()


def test_texts_and_images(ours, theirs):
    for text in TEXTS:
        expected = vector(theirs, theirs.text_prompt.replace("<sent>", text))
        np.testing.assert_allclose(ours.encode(text), expected, atol=1e-4)
    for image in IMAGES:
        expected = vector(theirs, theirs.img_prompt, image)
        np.testing.assert_allclose(ours.encode(Item(images=(image,))), expected, atol=1e-4)


def test_an_image_that_a_text_modifies(ours, theirs):
    item = Item("make it blue", images=tuple(IMAGES[:1]))
    prompt = theirs.composed_prompt.format(item.text)
    np.testing.assert_allclose(ours.encode(item), vector(theirs, prompt, IMAGES[0]), atol=1e-4)
    assert ours.processor.prompter.render(item) == "<|begin_of_text|>" + prompt


def test_what_is_not_read_and_other_models(ours, tmp_path):
    (found,) = ours.processor.try_encode([Item("a", videos=("a.mp4",))])
    assert isinstance(found, RecordError) and "the model reads texts and images only" in str(found)
    tiny.write(tmp_path, "qwen2", num_layers=1)
    with pytest.raises(ValueError, match=r"lacks <image>, <\|end_header_id\|>.*the profile 'e5-v'"):
        Prompter(tmp_path, "e5-v")
