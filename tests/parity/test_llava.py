"""Models that read images in tiles against transformers: items, gradients, independence."""

import io

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from lco_jax.config import Contrastive, Lora, Memory, Towers
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import choose_shape, item_lengths, measure, pack, split_items
from lco_jax.data.pack.media_batch import MediaPacker
from lco_jax.data.pack.specs import batch_specs
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.models.build import build
from lco_jax.models.config import read_config
from lco_jax.objectives.contrastive import contrastive_objective
from lco_jax.runtime.processes import to_global
from lco_jax.weights.hub import load_params
from tests import hf_items, meshes, tiny
from tests.data.media_files import encode, random_image

SIZES = [(80, 61), (210, 33), (57, 300), (28, 28), (9, 12), (500, 90)]
ASK = "\nSummarize the above {} in one word:"
ASK_OF_MIXTURE = "\nSummarize the above in one word:"
LINEARS = "q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj"


def png(index):
    return encode(random_image(index, SIZES[index]), "PNG")


ITEMS = [
    Item(images=(png(0),)),
    Item("a small red fox", images=(png(1),)),
    Item("which of them", images=(png(2), png(3), png(4))),
    Item("only words"),
    Item(images=(png(5),)),
    Item("a rather long text about a quick brown fox that jumps over a lazy dog"),
]


@pytest.fixture(scope="module", params=["llama", pytest.param("mistral", marks=pytest.mark.slow)])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    vision = tiny.TILES | {"num_attention_heads": 4, "hidden_size": 32}
    changes = {"decoder": request.param}
    return tiny.write(
        folder, "llava_next", vision=vision, tied=False, num_layers=2, changes=changes
    )


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return make_embedder(checkpoint.folder)


def make_embedder(folder, sizes=(1, 1, 1), **options):
    return Embedder(folder, mesh=meshes.make(sizes), dtype="float32", **options)


@pytest.fixture(scope="module")
def vectors(embedder):
    return embedder.encode(ITEMS)


def their_inputs(checkpoint, item):
    images = [Image.open(io.BytesIO(content)) for content in item.images]
    kinds = ["image"] * bool(images) + ["text"] * bool(item.text)
    prompt = ASK.format(kinds[0]) if len(kinds) == 1 else ASK_OF_MIXTURE
    return hf_items.make_inputs(checkpoint, text=item.text, images=images, prompt=prompt)


@pytest.mark.parametrize("index", range(len(ITEMS)))
def test_equals_transformers(checkpoint, vectors, index):
    inputs = their_inputs(checkpoint, ITEMS[index])
    expected = hf_items.run(checkpoint, inputs.pop("input_ids"), **inputs)
    np.testing.assert_allclose(vectors[index], expected, atol=1e-4)


def test_alone_and_beside_any_neighbours(embedder, vectors):
    for item, vector in zip(ITEMS, vectors, strict=True):
        np.testing.assert_allclose(embedder.encode(item), vector, atol=1e-5)
    order = np.random.default_rng(0).permutation(len(ITEMS))
    shuffled = embedder.encode([ITEMS[index] for index in order])
    np.testing.assert_allclose(shuffled, vectors[order], atol=1e-5)


@pytest.mark.parametrize(
    "sizes", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str
)
def test_on_any_mesh_in_any_budget(checkpoint, vectors, sizes):
    other = make_embedder(checkpoint.folder, sizes, tokens_per_batch=64, patches_per_batch=96)
    np.testing.assert_allclose(other.encode(ITEMS), vectors, atol=1e-5)


# ---------------------------------------------------------------------------------- gradients

TRIPLETS = [
    (Item(images=(png(0),)), Item("a fox"), Item("women at a market")),
    (Item("a market"), Item("the dog", images=(png(1),)), Item(images=(png(3),))),
]
TRAINABLE = Towers(decoder=Lora(rank=4, alpha=8, dropout=0.0))


def torch_gradients(checkpoint):
    """The loss, and values with gradients of factors and towers."""
    torch.manual_seed(1)
    targets = rf"model\.language_model\.layers\.\d+\.\w+\.({LINEARS})"
    model = get_peft_model(checkpoint.model, LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    inner = model.base_model.model.model
    for part in (inner.vision_tower, inner.multi_modal_projector):
        part.requires_grad_(True)
    inner.image_newline.requires_grad_(True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    unit = []
    for role in range(3):
        states = [
            inner(**their_inputs(checkpoint, triplet[role])).last_hidden_state[0, -1]
            for triplet in TRIPLETS
        ]
        unit.append(torch.nn.functional.normalize(torch.stack(states), dim=-1))
    logits = unit[0] @ torch.cat(unit[1:]).T / 0.03
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(len(logits)))
    loss.backward()
    return loss.item(), model


def theirs_by_path(model, which):
    """Values or gradients under the paths of our tree."""
    inner = model.base_model.model.model
    read = (lambda x: x.detach()) if which == "value" else (lambda x: x.grad)
    found = {}
    names = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}
    names |= {name: f"{name}_proj" for name in ("gate", "up", "down")}
    for ours, name in names.items():
        block = "mlp" if ours in ("gate", "up", "down") else "attention"
        for factor in "AB":
            layers = [
                getattr(getattr(layer, "mlp" if block == "mlp" else "self_attn"), name)
                for layer in inner.language_model.layers
            ]
            values = [read(getattr(x, f"lora_{factor}")["default"].weight) for x in layers]
            stacked = torch.stack([x if factor == "A" else x.T for x in values])
            found[f"layers/{block}/{ours}/lora_{factor.lower()}"] = stacked
    tower, projector = inner.vision_tower, inner.multi_modal_projector
    found["vision/newline"] = read(inner.image_newline)
    found["vision/projector/hidden/kernel"] = read(projector.linear_1.weight).T
    found["vision/projector/output/bias"] = read(projector.linear_2.bias)
    found["vision/embed/first"] = read(tower.embeddings.class_embedding)
    found["vision/blocks/mlp/output/kernel"] = torch.stack(
        [read(layer.mlp.fc2.weight).T for layer in tower.encoder.layers[:2]]
    )
    return {path: value.numpy() for path, value in found.items()}


def test_gradients_equal_those_of_torch(tmp_path):
    checkpoint = tiny.write(tmp_path, "llava_next", tied=False, num_layers=2)
    expected_loss, model = torch_gradients(checkpoint)
    config = read_config(tmp_path)
    graph, trainable, frozen = build(config, TRAINABLE, "float32", towers=("vision",))
    values = theirs_by_path(model, "value")

    def path_of(keys):
        return "/".join(str(key.key) for key in keys)

    factors = [path for path in values if "/lora_" in path]
    base = load_params(tmp_path, config, frozen | {"vision": trainable["vision"]})
    params = jax.tree_util.tree_map_with_path(
        lambda keys, x: (
            jax.numpy.asarray(values[path_of(keys)].reshape(x.shape))
            if path_of(keys) in factors
            else x
        ),
        {**trainable, "vision": base["vision"]},
    )
    base = {name: part for name, part in base.items() if name != "vision"}

    processor = Processor(tmp_path, config)
    encoded = processor.encode([item for triplet in TRIPLETS for item in triplet])
    lengths = item_lengths(encoded).reshape(1, -1, 3)
    shape = choose_shape(measure(lengths, 1, (64, 256)), (64, 256))
    packer = MediaPacker(config, (128,))
    media = packer.choose_shape(packer.measure(split_items(encoded, 1)))
    numbers = np.arange(len(TRIPLETS))[None]
    batch = pack(encoded, numbers, 1, shape._replace(media=media), len(processor.head), packer)
    batch = to_global(jax.sharding.get_mesh(), batch, batch_specs(batch))
    loss_fn = contrastive_objective(graph, Contrastive(), Memory())
    run = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, _), gradient = run(params, base, None, batch, jax.numpy.asarray(processor.head))
    assert float(loss) == pytest.approx(expected_loss, rel=1e-5)
    found = {path_of(keys): x for keys, x in jax.tree_util.tree_leaves_with_path(gradient)}
    for path, theirs in theirs_by_path(model, "gradient").items():
        difference = np.linalg.norm(np.asarray(found[path]).reshape(theirs.shape) - theirs)
        assert np.linalg.norm(theirs) > 0 and difference <= 1e-4 * np.linalg.norm(theirs), path
