"""Embeddings and the contrastive gradient against torch, laid out as the official trainer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from lco_jax.config import Contrastive, Lora, Memory
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.pack.batch import choose_shape, item_lengths, measure, pack
from lco_jax.data.pack.specs import BATCH_SPECS
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.lab.fetch import ensure_smollm2
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.objectives.contrastive import contrastive_objective
from lco_jax.runtime.processes import to_global
from lco_jax.weights.hub import load_params
from tests import tiny

TRIPLETS = [
    ("the fox jumps", "a quick brown fox jumps over a dog", "two women watch a busy market"),
    ("a market", "women at a busy market in the morning while a dog sleeps", "lazy dog"),
    ("over the dog", "it jumps over it", "the the the the the the"),
    ("x", "the letter x", "a brown horse is outdoors, a person is on it"),
]
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def torch_gradients(folder):
    """Loss and LoRA gradients of three padded forward passes, with left padding."""
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=LINEARS))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    unit = []
    for texts in zip(*TRIPLETS, strict=True):
        prompts = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": f"{text}\nSummarize the above text in one word:"}],
                add_generation_prompt=True,
                tokenize=False,
            )
            for text in texts
        ]
        inputs = tokenizer(prompts, padding=True, return_tensors="pt")
        states = model(**inputs, output_hidden_states=True).hidden_states[-1][:, -1]
        unit.append(torch.nn.functional.normalize(states, dim=-1))
    logits = unit[0] @ torch.cat(unit[1:]).T / 0.03
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    loss.backward()
    factors = {
        name.removesuffix(".default.weight"): (parameter.detach().numpy(), parameter.grad.numpy())
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    return loss.item(), factors


def stack(factors, module, factor, which, shape):
    name = "base_model.model.model.layers.{}.{}.lora_" + factor
    layers = [factors[name.format(n, module)][which] for n in range(shape[0])]
    values = np.stack(layers)
    return values.reshape(shape) if factor == "A" else values.swapaxes(1, 2).reshape(shape)


@pytest.mark.parametrize(
    ("family", "encode_chunks"),
    [
        *(("qwen2", 1), ("qwen2", 2)),
        *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("qwen3", "llama", "mistral")),
    ],
)
def test_gradient_equals_that_of_torch(tmp_path, family, encode_chunks):
    tiny.write(tmp_path, family)
    expected_loss, factors = torch_gradients(tmp_path)
    config, lora = read_config(tmp_path), Lora(rank=4, alpha=8, dropout=0.0)
    graph, trainable, frozen = build(config, lora, "float32")
    names = {"query": "q", "key": "k", "value": "v", "output": "o"}

    def from_torch(path, x, which):
        keys = [part.key for part in path]
        block, linear, factor = keys[1], keys[2], keys[3][-1].upper()
        hub = names.get(linear, linear)
        module = f"{'self_attn' if block == 'attention' else 'mlp'}.{hub}_proj"
        return jnp.asarray(stack(factors, module, factor, which, x.shape))

    params = jax.tree_util.tree_map_with_path(lambda p, x: from_torch(p, x, 0), trainable)
    expected = jax.tree_util.tree_map_with_path(lambda p, x: from_torch(p, x, 1), trainable)

    prompter = Prompter(tmp_path)
    items = [Item(text) for triplet in TRIPLETS for text in triplet]
    encoded = prompter.encode(items)
    lengths = item_lengths(encoded).reshape(encode_chunks, -1, 3)
    shape = choose_shape(measure(lengths, 1, (64, 128)), (64, 128))
    numbers = np.arange(len(TRIPLETS)).reshape(encode_chunks, -1)
    batch = pack(encoded, numbers, 1, shape, len(prompter.head))
    batch = to_global(jax.sharding.get_mesh(), batch, BATCH_SPECS)
    loss_fn = contrastive_objective(graph, Contrastive(), Memory(encode_chunks=encode_chunks))
    arguments = (load_params(tmp_path, config, frozen), None, batch)
    gradient_fn = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, _), gradient = gradient_fn(params, *arguments, jnp.asarray(prompter.head))

    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    for (path, ours), theirs in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(expected), strict=True
    ):
        difference = np.linalg.norm(ours - theirs)
        assert difference <= 1e-4 * np.linalg.norm(theirs), jax.tree_util.keystr(path)


def test_real_weights_give_the_vectors_of_transformers():
    folder = ensure_smollm2()
    texts = ["The cat sat on the mat.", "swift: moving very fast", "Ein kurzer Satz über Züge."]
    ours = Embedder(folder, dtype="float32").encode(texts)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, vector in zip(texts, ours, strict=True):
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": f"{text}\nSummarize the above text in one word:"}],
            add_generation_prompt=True,
            return_tensors="pt",
        )
        ids = ids if isinstance(ids, torch.Tensor) else ids["input_ids"]
        with torch.no_grad():
            state = model(input_ids=ids).last_hidden_state[0, -1]
        expected = torch.nn.functional.normalize(state, dim=0).numpy()
        assert float(vector @ expected) >= 0.99999
