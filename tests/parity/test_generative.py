"""The generative loss and all its gradients against transformers, with media in the prompts."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from lco_jax.config import Full, MediaConfig, Memory, Towers
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.audio import load_audio
from lco_jax.data.media.config import MelConfig
from lco_jax.data.pack.batch import choose_shape, item_lengths, measure, pack, split_items
from lco_jax.data.pack.media_batch import MediaPacker
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Exchange, Item
from lco_jax.models.build import build, join
from lco_jax.models.config import read_config
from lco_jax.models.omni import available_towers
from lco_jax.objectives.generative import generative_objective
from lco_jax.runtime.processes import to_global
from lco_jax.weights.hub import load_params
from tests import hf_items, tiny
from tests.data.audio_files import plain, tones
from tests.data.media_files import encode, random_image

MEDIA = MediaConfig(image_max_pixels=9 * 28 * 28)


def png(index, size):
    return encode(random_image(index, size), "PNG")


EXCHANGES = [
    Exchange(Item("what is this", images=(png(0, (80, 61)),)), "a quick brown fox"),
    Exchange(Item("say it"), "over the lazy dog, in the morning"),
    Exchange(Item(images=(png(1, (57, 100)), png(2, (28, 28)))), "two women"),
]


READ = [Exchange(Item(text), answer) for text, answer in (("say it", "a dog"), ("who?", "busy"))]
"""Of models that read texts alone."""
TEXT_FAMILIES = ("llama", "mistral", "qwen3")
HEARD = [
    Exchange(Item("who speaks", audios=(plain(tones(2.7, seed=3)),)), "the brown fox"),
    Exchange(
        Item(images=(png(3, (56, 56)),), audios=(plain(tones(0.4)), plain(tones(1.9, seed=5)))),
        "a dog at the market",
    ),
]
"""Of a model that hears."""


def torch_inputs(checkpoint, tokenizer, prompt):
    """What the model is given of a turn of the user."""
    if not prompt.has_media and checkpoint.model.config.model_type in TEXT_FAMILIES:
        turn = [{"role": "user", "content": prompt.text}]
        options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
        return dict(tokenizer.apply_chat_template(turn, **options))
    return hf_items.make_inputs(
        checkpoint,
        text=prompt.text,
        images=[Image.open(io.BytesIO(content)) for content in prompt.images],
        sounds=[load_audio(content, MelConfig()) for content in prompt.audios],
        max_pixels=MEDIA.image_max_pixels,
    )


def torch_loss_and_gradients(checkpoint, exchanges, folder, lead, end):
    """The loss, and a hub folder with the gradients in the place of the weights; `lead` is what the
    template writes before a response."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    sums, count = 0, 0
    for exchange in exchanges:
        inputs = torch_inputs(checkpoint, tokenizer, exchange.prompt)
        answer = tokenizer(lead + exchange.response, add_special_tokens=False).input_ids
        answer = torch.tensor([[*answer, end]])
        prompt = inputs["input_ids"]
        inputs["input_ids"] = torch.cat([prompt, answer], 1)
        for name, value in (("mm_token_type_ids", 0), ("attention_mask", 1)):
            if name in inputs:
                more = torch.full_like(answer, value, dtype=inputs[name].dtype)
                inputs[name] = torch.cat([inputs[name], more], 1)
        labels = torch.cat([torch.full_like(prompt, -100), answer], 1)
        sums = sums + checkpoint.model(**inputs, labels=labels).loss * answer.numel()
        count += answer.numel()
    loss = sums / count
    loss.backward()
    with torch.no_grad():
        for parameter in checkpoint.model.parameters():
            gradient = parameter.grad
            parameter.copy_(torch.zeros_like(parameter) if gradient is None else gradient)
    checkpoint.model.save_pretrained(folder)
    return loss.item(), count


@pytest.mark.parametrize(
    ("family", "tied"),
    [
        ("qwen2_5_vl", True),
        ("qwen2_5_omni_thinker", False),
        ("qwen3_vl", True),
        ("llava_next", False),
        ("llama", False),
        ("mistral", True),
        ("qwen3", True),
    ],
)
def test_loss_and_gradients(tmp_path, family, tied):
    checkpoint = tiny.write(
        tmp_path / "model",
        family,
        tied=tied,
        num_layers=2,
        vision=tiny.DEEP_TOWER if family.startswith("qwen2_5") else None,
    )
    row = (256 if family == "llava_next" else 128,)
    exchanges = READ if family in TEXT_FAMILIES else EXCHANGES
    exchanges = exchanges + (HEARD if "omni" in family else [])
    config = read_config(checkpoint.folder)
    towers = available_towers(config)
    processor = Processor(checkpoint.folder, config, media=MEDIA)
    trains = Towers(decoder=Full()) if towers else Full()
    graph, trainable, frozen = build(config, trains, "float32", towers=towers, with_head=True)
    assert not frozen
    params = load_params(checkpoint.folder, config, join(trainable, frozen))

    encoded = processor.try_encode_exchanges(exchanges, 100)
    lengths = item_lengths(encoded).reshape(1, -1, 1)
    packer = MediaPacker(config, (256,))
    shape = choose_shape(measure(lengths, 1, row), row)
    shape = shape._replace(media=packer.choose_shape(packer.measure(split_items(encoded, 1))))
    numbers = np.arange(len(exchanges))[None]
    batch = pack(encoded, numbers, 1, shape, len(processor.head), packer)
    batch = to_global(jax.sharding.get_mesh(), batch, batch_specs(batch))
    loss_fn = generative_objective(graph, Memory(head_tokens=32))
    run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, metrics), gradients = run(params, {}, None, batch, jnp.asarray(processor.head))

    end = processor.prompter.end_token
    lead = "\n" if family == "llava_next" else ""
    gradients_folder = tmp_path / "gradients"
    expected, count = torch_loss_and_gradients(checkpoint, exchanges, gradients_folder, lead, end)
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert metrics["target_tokens"] == count
    assert float(metrics["perplexity"]) == pytest.approx(np.exp(expected), rel=1e-4)
    wanted = load_params(tmp_path / "gradients", config, trainable)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(wanted), strict=True
    ):
        name = jax.tree_util.keystr(path)
        difference = np.linalg.norm(ours - theirs)
        assert difference <= 1e-4 * np.linalg.norm(theirs) + 1e-9, name
        assert np.linalg.norm(theirs) > 0, name
