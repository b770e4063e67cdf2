"""The profile of Qwen3-VL-Embedding: turns, prompts and sizes of the released script."""

import io

import numpy as np
import pytest
from PIL import Image
from transformers import AutoTokenizer

from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from tests import hf_items, tiny
from tests.data.media_files import encode, noise, random_image, video_file

PROFILE = "qwen3-vl-embedding"
HEAD = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
PNG = encode(random_image(0, (100, 70)), "PNG")
CLIP = video_file("mp4", noise(7, (64, 48)), 2, size=(64, 48))
CASES = [
    (Item("  Die Würde 東京"), "  Die Würde 東京"),
    (Item(images=(PNG,)), IMAGE),
    (Item("a fox", images=(PNG, PNG)), f"{IMAGE}{IMAGE}a fox"),
    (Item("what is it", images=(PNG,), videos=(CLIP,)), f"{VIDEO}{IMAGE}what is it"),
    (Item(""), "NULL"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("model"), "qwen3_vl", num_layers=2)


@pytest.fixture(scope="module")
def ours(checkpoint):
    return Embedder(checkpoint.folder, profile=PROFILE, dtype="float32")


@pytest.mark.parametrize(("item", "body"), CASES)
def test_turns(ours, checkpoint, item, body):
    assert ours.processor.prompter.render(item) == HEAD + body + TAIL
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    (found,) = ours.processor.encode([item])
    if not item.has_media:
        ids = tokenizer(HEAD + body + TAIL, add_special_tokens=False).input_ids
        assert [*ours.processor.head.tolist(), *found.tokens.tolist()] == ids


def test_vectors(ours, checkpoint, monkeypatch):
    # The template of the checkpoint that a recipe has in its place.
    template = (
        "{{- '" + HEAD.replace("'", "\\'").replace("\n", "\\n") + "' -}}"
        "{%- for part in messages[0]['content'] -%}{{- part['text'] if part['type'] == 'text' "
        f"else '{IMAGE}' -}}}}{{%- endfor -%}}{{{{- '{TAIL}' -}}}}"
    ).replace(TAIL, TAIL.replace("\n", "\\n"))
    load = AutoTokenizer.from_pretrained

    def with_template(folder):
        tokenizer = load(folder)
        tokenizer.chat_template = template
        return tokenizer

    monkeypatch.setattr(hf_items.AutoTokenizer, "from_pretrained", with_template)
    bounds = {"min_pixels": 4 * 32 * 32, "max_pixels": 1800 * 32 * 32}
    for item, _ in CASES[:3]:
        images = [Image.open(io.BytesIO(content)) for content in item.images]
        expected = hf_items.embed(checkpoint, text=item.text, images=images, **bounds)
        np.testing.assert_allclose(ours.encode(item), expected, atol=1e-4)


def test_sizes_unless_others_are_asked_for(ours):
    media = ours.processor.media
    assert (media.image_min_pixels, media.image_max_pixels) == (4096, 1_843_200)
    assert (media.video_fps, media.video_max_frames) == (1.0, 64)
    assert media.video_max_total_pixels == 10 * media.video_max_pixels == 10 * 768 * 32 * 32


def test_other_tokenizers(tmp_path):
    tiny.write(tmp_path, "qwen2", num_layers=1)
    with pytest.raises(ValueError, match=r"lacks <\|image_pad\|>.*the profile 'qwen3-vl-embedd"):
        Prompter(tmp_path, PROFILE)
