"""A small model learns to name images: gradients reach the tower, and nothing else moves."""

import json

import jax
import numpy as np
import pytest
import torch

from lco_jax.config import (
    CheckpointConfig,
    DataConfig,
    Generative,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    Towers,
)
from lco_jax.data.records import Item
from lco_jax.embed.generate import Generator
from lco_jax.embed.open import open_model
from lco_jax.train.loop import train
from lco_jax.train.metrics import read_metrics
from tests import meshes, runs, tiny
from tests.data.media_files import random_image
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device")

NAMES = ("fox", "a dog", "market", "two women", "the brown", "lazy", "morning", "quick horse")
MEDIA = MediaConfig(image_min_pixels=56 * 56, image_max_pixels=56 * 56)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    written = tiny.write(folder, "qwen2_5_vl", num_layers=2, vision=tiny.SMALL_TOWER)
    # The random logits of 32 dimensions are so small that no state makes one token likely.
    with torch.no_grad():
        written.decoder.norm.weight.mul_(12)
    written.model.save_pretrained(folder)
    lines = []
    for number, name in enumerate(NAMES):
        random_image(number, (56, 56)).save(folder / f"{number}.png")
        lines.append(json.dumps({"prompt": {"image_path": f"{number}.png"}, "response": name}))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    "decoder",
    [pytest.param(None, marks=pytest.mark.slow), Lora(rank=8, alpha=16, dropout=0.0)],
    ids=["frozen", "lora"],
)
def test_learns_eight_images(checkpoint, tmp_path, decoder):
    source = JsonlSource(str(checkpoint / "captions.jsonl"))
    config = runs.make_config(
        checkpoint,
        checkpoint / "captions.jsonl",
        model=ModelRef(str(checkpoint), trainable=Towers(decoder=decoder), dtype="float32"),
        mesh=MeshConfig(data=-1),
        data=DataConfig(sources=(source,), batch_size=8, media=MEDIA),
        objective=Generative(),
        optimizer=OptimizerConfig(peak_lr=5e-3, warmup_steps=10),
        memory=Memory(row_tokens=(64,), frame_rows=(256,)),
        checkpoint=CheckpointConfig(every_steps=1000),
        num_steps=80,
    )
    train(config, str(tmp_path / "run"))
    losses = [line["loss"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    before, after = (
        open_model(str(path), dtype="float32").params for path in (checkpoint, tmp_path / "run")
    )
    after.pop("head", None)
    moved = jax.tree.map(lambda old, new: bool(np.any(old != new)), before, after)
    assert all(jax.tree.leaves(moved["vision"]))
    for path, changed in jax.tree_util.tree_leaves_with_path({**moved, "vision": {}}):
        is_refined = decoder and path[0].key == "layers" and path[-1].key == "kernel"
        assert changed == bool(is_refined), path
    if decoder is None:  # a random decoder cannot be steered to every name
        assert losses[-1] < losses[0] - 2
        return
    assert losses[-1] < 0.1
    # All images ask the same: only what the tower says of them can tell the names apart.
    items = [Item(images=(str(checkpoint / f"{number}.png"),)) for number in range(len(NAMES))]
    generator = Generator.open(tmp_path / "run", mesh=meshes.make((1, 1, 1)))
    assert generator.generate(items, max_new_tokens=8) == list(NAMES)
