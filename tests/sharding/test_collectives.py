"""What a step sends between devices: as many messages on every mesh, and the bytes of a formula."""

import dataclasses

import jax
import pytest

from lco_jax.config import Memory, MeshConfig
from lco_jax.plan.abstract import abstract_run, count
from lco_jax.plan.hlo import Program
from lco_jax.plan.hlo_cost import collectives, costs
from tests import meshes, runs, tiny

EXAMPLES_PER_SHARD = 4


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", num_layers=2)
    config = runs.make_config(folder, folder / "none.jsonl")
    return dataclasses.replace(config, model=dataclasses.replace(config.model, towers=()))


def measure(config, shards, exchange):
    """Collectives of a step with a fixed share of the batch on each of `shards` devices."""
    data = dataclasses.replace(config.data, batch_size=EXAMPLES_PER_SHARD * shards)
    memory = Memory(row_tokens=(128,), candidates=exchange)
    grown = dataclasses.replace(config, data=data, memory=memory, mesh=MeshConfig())
    with jax.set_mesh(meshes.make((shards, 1, 1))):
        run = abstract_run(grown)
        compiled = run.step.lower(run.state, run.batch, run.preamble).compile()
    return run, collectives(costs(Program(compiled.as_text())))


def total(rows, kind):
    found = [row for row in rows if row.kind == kind]
    return sum(row.count for row in found), sum(row.num_bytes for row in found)


@pytest.mark.parametrize("exchange", [pytest.param("gathered", marks=pytest.mark.slow), "ring"])
def test_weak_scaling(config, exchange):
    """The bytes of each kind on a device, and that messages do not grow in number.

    With n data shards, B triplets of width D, T trained weights and a head of P tokens,

        all-gather      4 T for the new weights, of which each shard computed a part; gathered:
                        2 B candidates of 4 D bytes and a tag of 16
        all-reduce      4 T of gradients, 8 L P K H for the head's keys and values, and scalars
        reduce-scatter  gathered: the gradients of 2 B candidates, 4 D each
        permute         ring: blocks of 2 B / n candidates with tags, n - 1 times forward and n
                        times backward, and n times with their gradients
    """
    small, large = (measure(config, shards, exchange) for shards in (4, 8))
    for run, rows in (small, large):
        shards = 4 if run is small[0] else 8
        trained = 4 * count(run.state.trainable)
        width = run.model.text.hidden_size
        candidates = 2 * EXAMPLES_PER_SHARD * shards
        gathered = candidates * (4 * width + 16) if exchange == "gathered" else 0
        spread = sum(
            4 * x.size for x in jax.tree.leaves(run.state.trainable) if _divides(x.shape, shards)
        )
        assert total(rows, "all-gather")[1] == gathered + spread
        size = run.model.text.sizes
        head = 8 * size["L"] * run.preamble.shape[0] * size["K"] * size["H"]
        assert 0 <= total(rows, "all-reduce")[1] - trained - head < 128
        scattered = 4 * width * candidates if exchange == "gathered" else 0
        assert total(rows, "reduce-scatter")[1] == scattered
        laps = (2 * shards - 1) * (4 * width + 16) + shards * 4 * width
        permuted = candidates // shards * laps if exchange == "ring" else 0
        assert total(rows, "collective-permute")[1] == permuted
    for kind in ("all-gather", "all-reduce", "reduce-scatter"):
        assert total(small[1], kind)[0] == total(large[1], kind)[0], kind


def _divides(shape, shards):
    return any(size % shards == 0 for size in shape)
