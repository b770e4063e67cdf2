"""The layout that plans are compared with gives the same loss, and does more for it."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.peer_layout import make_loss, peer_run
from lco_jax.config import Lora
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.specs import batch_specs
from lco_jax.models.config import read_config
from lco_jax.models.describe import describe_model
from lco_jax.objectives.traits import make_loader, traits_of
from lco_jax.plan.abstract import abstract_run
from lco_jax.runtime import processes
from lco_jax.train.optimizer import make_optimizer, make_schedule
from lco_jax.train.setup import initial_state
from tests import meshes, runs, tiny
from tests.plan.products import matrix_flops


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2", num_layers=3)
    config = runs.make_config(folder, runs.write_triplets(folder / "triplets.jsonl"))
    trainable = Lora(rank=4, alpha=8, dropout=0.0)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, trainable=trainable),
        memory=dataclasses.replace(config.memory, remat="full"),
    )


def padded(batch, head):
    """Every item behind the preamble in a row of its own, padded on the left."""
    _, roles, examples = batch.pool.shape
    tokens, segments = batch.tokens.reshape(-1), batch.segments.reshape(-1)
    items = {
        (role, example): np.append(head, tokens[segments == segments[batch.pool[0, role, example]]])
        for role in range(roles)
        for example in range(examples)
    }
    table = np.zeros((roles, examples, max(map(len, items.values()))), np.int32)
    own, positions = np.zeros_like(table), np.zeros((*table.shape, 3), np.int32)
    for place, item in items.items():
        table[place][-len(item) :], own[place][-len(item) :] = item, 1
        positions[place][-len(item) :] = np.arange(len(item))[:, None]
    by_role = lambda x: np.moveaxis(x, 1, 0)  # noqa: E731
    return batch._replace(
        tokens=table,
        segments=own,
        positions=positions,
        valid=by_role(batch.valid),
        content=by_role(batch.content),
    )


def on_mesh(batch):
    return processes.to_global(jax.sharding.get_mesh(), batch, batch_specs(batch))


def test_the_loss_is_ours(config):
    folder = Path(config.model.path)
    with jax.set_mesh(meshes.make((1, 1, 1))):
        mesh = jax.sharding.get_mesh()
        sizes = read_config(folder)
        model = describe_model(config.model, sizes, with_head=True)
        processor = Processor(folder, sizes)
        optimizer = make_optimizer(config.optimizer, make_schedule(config.optimizer, 6))
        state = initial_state(config, model, folder, optimizer)
        _, batch, _ = next(iter(make_loader(config, processor, mesh)))
        head, key = np.asarray(processor.head), jax.random.key(0)
        ours = traits_of(config.objective).make_loss(model.graph, config.objective, config.memory)
        theirs = make_loss(model.graph, config)
        given = (state.trainable, state.frozen, key)
        expected, _ = ours(*given, on_mesh(batch), jnp.asarray(head))
        loss, metrics = theirs(*given, on_mesh(padded(batch, head)), None)
    assert all(np.isfinite(metrics["logits"])) and len(metrics["logits"]) == 3
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_it_does_more(config):
    with jax.set_mesh(meshes.make((1, 1, 1))):
        ours, theirs = (make(config) for make in (abstract_run, peer_run))
        flops = [matrix_flops(run) for run in (ours, theirs)]
    # 16 triplets of whole prompts of 46 tokens, and in the last layer all of them.
    assert theirs.batch.tokens.shape == (3, 16, 46)
    text = theirs.model.text
    head = 2 * text.vocab_size * text.hidden_size * theirs.slots
    assert flops[1] - head > 1.25 * flops[0] * theirs.slots / ours.slots
