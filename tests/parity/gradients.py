"""Gradients of one contrastive step on items with media, of towers and of low-rank factors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from lco_jax.config import Contrastive, Lora, Memory, Towers
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import choose_shape, item_lengths, measure, pack, split_items
from lco_jax.data.pack.media_batch import MediaPacker
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Item
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.objectives.contrastive import contrastive_objective
from lco_jax.runtime.processes import to_global
from lco_jax.weights.hub import load_params
from tests.tiny import Tiny

LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"
TRAINABLE = Towers(decoder=Lora(rank=4, alpha=8, dropout=0.0))
Triplets = Sequence[tuple[Item, Item, Item]]


def of_torch(
    checkpoint: Tiny, triplets: Triplets, make_inputs: Callable[[Item], dict]
) -> tuple[float, PeftModel]:
    """The loss, and a model with values and gradients of factors and of all that is no decoder."""
    torch.manual_seed(1)
    targets = rf"model\.language_model\.layers\.\d+\.\w+\.({LINEARS})"
    model = get_peft_model(checkpoint.model, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    inner = model.base_model.model.model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".language_model." not in name and "lm_head" not in name:
                parameter.requires_grad_(True)
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    unit = []
    for role in range(3):
        states = [
            inner(**make_inputs(triplet[role])).last_hidden_state[0, -1] for triplet in triplets
        ]
        unit.append(torch.nn.functional.normalize(torch.stack(states), dim=-1))
    logits = unit[0] @ torch.cat(unit[1:]).T / 0.03
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    loss.backward()
    return loss.item(), model


def factors_of_torch(
    model: PeftModel, read: Callable[[torch.nn.Parameter], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What `read` gives of the low-rank factors, under the paths of our tree."""
    found = {}
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    names |= {name: f"{name}_proj" for name in ("gate", "up", "down")}
    for ours, name in names.items():
        block = "mlp" if ours in ("gate", "up", "down") else "attention"
        for factor in "AB":
            layers = [
                getattr(getattr(layer, "mlp" if block == "mlp" else "self_attn"), name)
                for layer in model.base_model.model.model.language_model.layers
            ]
            values = [read(getattr(x, f"lora_{factor}")["default"].weight) for x in layers]
            stacked = torch.stack([x if factor == "A" else x.T for x in values])
            found[f"layers/{block}/{ours}/lora_{factor.lower()}"] = stacked
    return found


def ours(
    folder: Path,
    factors: Mapping[str, torch.Tensor],
    triplets: Triplets,
    processor: Processor | None = None,
) -> tuple[float, dict[str, np.ndarray]]:
    """The loss and the gradients by path, with factors of given values."""
    config = read_config(folder)
    graph, trainable, frozen = build(config, TRAINABLE, "float32", towers=("vision",))

    def path_of(keys: tuple) -> str:
        return "/".join(str(key.key) for key in keys)

    base = load_params(folder, config, frozen | {"vision": trainable["vision"]})
    params = jax.tree_util.tree_map_with_path(
        lambda keys, x: (
            jax.numpy.asarray(factors[path_of(keys)].numpy().reshape(x.shape))
            if path_of(keys) in factors
            else x
        ),
        {**trainable, "vision": base["vision"]},
    )
    base = {name: part for name, part in base.items() if name != "vision"}

    processor = processor or Processor(folder, config)
    encoded = processor.encode([item for triplet in triplets for item in triplet])
    lengths = item_lengths(encoded).reshape(1, -1, 3)
    shape = choose_shape(measure(lengths, 1, (64, 256)), (64, 256))
    packer = MediaPacker(config, (128,))
    media = packer.choose_shape(packer.measure(split_items(encoded, 1)))
    numbers = np.arange(len(triplets))[None]
    batch = pack(encoded, numbers, 1, shape._replace(media=media), len(processor.head), packer)
    batch = to_global(jax.sharding.get_mesh(), batch, batch_specs(batch))
    loss_fn = contrastive_objective(graph, Contrastive(), Memory())
    run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, _), gradient = run(params, base, None, batch, jax.numpy.asarray(processor.head))
    found = jax.tree_util.tree_leaves_with_path(gradient)
    return float(loss), {path_of(keys): np.asarray(x) for keys, x in found}


def check(found: Mapping[str, np.ndarray], expected: Mapping[str, torch.Tensor]) -> None:
    """That those of torch are ours, each relative to its length."""
    for path, theirs in expected.items():
        difference = np.linalg.norm(found[path].reshape(theirs.shape) - theirs.numpy())
        length = np.linalg.norm(theirs.numpy())
        assert length > 0 and difference <= 1e-4 * length, path
