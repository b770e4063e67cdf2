"""Greedy responses against transformers, token by token; sampling; rows, meshes, the end."""

import collections
import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoTokenizer

from lco_jax.config import MediaConfig
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig
from lco_jax.data.records import Exchange, Item
from lco_jax.embed.generate import Generator, Sampling
from lco_jax.embed.open import open_model
from lco_jax.lab.fetch import ensure_smollm2
from tests import hf_items, meshes, tiny
from tests.data.audio_files import plain, tones
from tests.data.media_files import encode, random_image

MEDIA = MediaConfig(image_max_pixels=9 * 28 * 28)
SIZES = [(80, 61), (57, 100), (28, 28)]
NEW = 12


def png(index):
    return encode(random_image(index, SIZES[index]), "PNG")


ITEMS = [
    Item("a quick brown fox"),
    Item("what is this", images=(png(0),)),
    Item(images=(png(1), png(2))),
    Item("over the lazy dog and the market, a busy market in the morning"),
]


HEARD = [
    Item("who speaks", audios=(plain(tones(1.3, seed=3)),)),
    Item(images=(png(0),), audios=(plain(tones(0.4)), plain(tones(2.6, seed=5)))),
]
"""For a model that hears."""


@pytest.fixture(
    scope="module",
    params=[
        "qwen2_5_vl",
        "qwen2_5_omni_thinker",
        pytest.param("llava_next", marks=pytest.mark.slow),
        pytest.param("qwen3_vl", marks=pytest.mark.slow),
    ],
)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiles = tiny.TILES | {"num_attention_heads": 4}
    vision = {"llava_next": tiles, "qwen3_vl": tiny.EVEN_FRAMES}.get(request.param)
    tied = request.param == "qwen2_5_vl"
    return tiny.write(folder, request.param, tied=tied, num_kv_heads=4, num_layers=2, vision=vision)


@pytest.fixture(scope="module")
def text_checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("text"), num_layers=2)


def open_generator(checkpoint, sizes=(1, 1, 1)):
    folder = checkpoint.folder
    return Generator.open(folder, dtype="float32", media=MEDIA, mesh=meshes.make(sizes))


@pytest.fixture(scope="module")
def items(checkpoint):
    return ITEMS + (HEARD if "omni" in checkpoint.model.config.model_type else [])


@pytest.fixture(scope="module")
def written(checkpoint, items):
    return open_generator(checkpoint).generate_tokens(items, max_new_tokens=NEW)


def of_transformers(model, inputs, end, new=NEW):
    with torch.no_grad():
        out = model.generate(
            **inputs, do_sample=False, max_new_tokens=new, eos_token_id=end, pad_token_id=end
        )
    return [token for token in out[0, inputs["input_ids"].shape[1] :].tolist() if token != end]


def test_equals_transformers(checkpoint, items, written):
    end = AutoTokenizer.from_pretrained(checkpoint.folder).eos_token_id
    for item, tokens in zip(items, written, strict=True):
        images = [Image.open(io.BytesIO(content)) for content in item.images]
        inputs = hf_items.make_inputs(
            checkpoint,
            text=item.text,
            images=images,
            sounds=[load_audio(content, MelConfig()) for content in item.audios],
            max_pixels=MEDIA.image_max_pixels,
        )
        assert tokens == of_transformers(checkpoint.model, inputs, end)


def test_neighbours_and_meshes_change_nothing(checkpoint, items, written):
    generator = open_generator(checkpoint, (2, 1, 2))
    assert generator.generate_tokens(items * 5, max_new_tokens=NEW) == written * 5


def test_stops_at_the_end(text_checkpoint):
    items = [ITEMS[0], ITEMS[3]]
    before_end = open_generator(text_checkpoint).generate_tokens(items, max_new_tokens=NEW)
    mesh = meshes.make((1, 1, 1))
    opened = open_model(str(text_checkpoint.folder), dtype="float32", with_head=True)
    # A token that the first prompt's response has takes the part of the end.
    end = opened.processor.prompter.end_token = before_end[0][3]
    generator = Generator(opened.graph, opened.params, opened.processor, mesh)
    found = generator.generate_tokens(items, max_new_tokens=NEW)
    for tokens, before in zip(found, before_end, strict=True):
        assert tokens == (before[: before.index(end)] if end in before else before)


def test_sampling_follows_the_distribution(text_checkpoint):
    """Counts of the first token of many equal prompts against the softmax of torch's logits."""
    generator = open_generator(text_checkpoint)
    (encoded,) = generator.processor.try_encode_exchanges([Exchange(ITEMS[0], "")], 1)
    ids = [*generator.processor.head.tolist(), *encoded.tokens.tolist()]
    with torch.no_grad():
        logits = text_checkpoint.model(torch.tensor([ids])).logits[0, -1]
    count = 400
    for sampling in (Sampling(temperature=3.0, seed=1), Sampling(3.0, top_p=0.4, seed=2)):
        chances = torch.softmax(logits / sampling.temperature, 0).numpy()
        order = np.argsort(-chances)
        kept = order[: 1 + np.searchsorted(np.cumsum(chances[order]), sampling.top_p)]
        expected = np.zeros_like(chances)
        expected[kept] = chances[kept] / chances[kept].sum()
        drawn = generator.generate_tokens([ITEMS[0]] * count, max_new_tokens=1, sampling=sampling)
        found = collections.Counter(token for tokens in drawn for token in tokens)
        assert set(found) <= set(kept.tolist())
        likely = [token for token in kept.tolist() if expected[token] > 0.02]
        for token in likely:
            spread = np.sqrt(expected[token] * (1 - expected[token]) / count)
            assert abs(found[token] / count - expected[token]) < 4.5 * spread


PROMPTS = [
    "What is the capital of France?",
    "Write one sentence about rain.",
    "Translate to German: good morning",
    "List three colours.",
    "Why is the sky blue?",
]


def test_real_weights_write_what_transformers_writes():
    compare_with_real_weights(PROMPTS[:2], new=8)


def compare_with_real_weights(prompts, new):
    folder = ensure_smollm2()
    generator = Generator.open(folder, dtype="float32", mesh=meshes.make((1, 1, 1)))
    ours = generator.generate_tokens(prompts, max_new_tokens=new)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, tokens in zip(prompts, ours, strict=True):
        rendered = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        inputs = tokenizer(rendered, return_tensors="pt", add_special_tokens=False)
        end = generator.processor.prompter.end_token
        assert tokens == of_transformers(model, inputs, end, new), prompt
