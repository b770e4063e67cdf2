"""One training step is the same on every mesh, with any chunking, and on two processes."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lco_jax.config import Contrastive, Full, Lora, Memory
from lco_jax.config.io import to_json
from lco_jax.embed.embedder import Embedder
from tests import meshes, runs, tiny


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, "qwen2_5_vl", num_kv_heads=4)
    return runs.make_config(folder, runs.write_triplets(folder / "triplets.jsonl"))


@pytest.fixture(scope="module")
def plain(config):
    return runs.run_steps(config, meshes.make((1, 1, 1)))


def same(results, expected, tolerance=1e-5):
    for one, other in zip(results, expected, strict=True):
        for name in ("loss", "gradient_norm", "accuracy@1", "negative_cosine"):
            assert one[name] == pytest.approx(other[name], rel=tolerance), name


@pytest.mark.parametrize("sizes", meshes.ALL_AXES, ids=str)
def test_meshes(config, plain, sizes):
    # Dropout is on: its masks belong to items, not to places on the mesh.
    assert config.model.trainable.dropout > 0
    same(runs.run_steps(config, meshes.make(sizes)), plain)


@pytest.mark.parametrize("chunks", [pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize(
    "sizes", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (2, 2, 2)], ids=str
)
def test_encode_chunks(config, plain, chunks, sizes):
    memory = dataclasses.replace(config.memory, encode_chunks=chunks)
    same(runs.run_steps(dataclasses.replace(config, memory=memory), meshes.make(sizes)), plain)


@pytest.mark.parametrize(
    "memory",
    [
        Memory(remat="full", logit_chunks=3),
        Memory(row_tokens=(256,)),
        pytest.param(Memory(remat="none"), marks=pytest.mark.slow),
    ],
    ids=["full remat, logit chunks", "long rows", "no remat"],
)
def test_memory_settings_change_nothing(config, plain, memory):
    same(runs.run_steps(dataclasses.replace(config, memory=memory), meshes.make((1, 1, 1))), plain)


def test_dropout_matters(config, plain):
    # The test above would pass if dropout did nothing.
    lora = Lora(rank=4, alpha=8, dropout=0.0)
    model = dataclasses.replace(config.model, trainable=lora)
    without = runs.run_steps(dataclasses.replace(config, model=model), meshes.make((1, 1, 1)))
    assert without[0]["gradient_norm"] != pytest.approx(plain[0]["gradient_norm"], rel=1e-3)


def test_full_fine_tuning_with_every_option_of_the_loss(config):
    objective = Contrastive(symmetric=True, mask_duplicates=True, matryoshka_dims=(8,))
    model = dataclasses.replace(config.model, trainable=Full())
    full = dataclasses.replace(config, model=model, objective=objective)
    same(runs.run_steps(full, meshes.make((2, 2, 2))), runs.run_steps(full, meshes.make((1, 1, 1))))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "llama", "mistral"])
@pytest.mark.parametrize("trainable", [Full(), Lora(rank=4, alpha=8)], ids=["full", "factors"])
def test_decoders_of_other_families(tmp_path, family, trainable):
    changes = {"attention_bias": True} if family == "llama" else None
    tiny.write(tmp_path, family, num_kv_heads=4, num_layers=2, changes=changes)
    config = runs.make_config(tmp_path, runs.write_triplets(tmp_path / "triplets.jsonl"))
    model = dataclasses.replace(config.model, trainable=trainable)
    config = dataclasses.replace(config, model=model)
    same(
        runs.run_steps(config, meshes.make((1, 2, 4))),
        runs.run_steps(config, meshes.make((1, 1, 1))),
    )
    vectors = [
        Embedder(tmp_path, dtype="float32", mesh=meshes.make(sizes)).encode(["a fox", "two women"])
        for sizes in ((1, 1, 1), (2, 2, 2))
    ]
    np.testing.assert_allclose(*vectors, atol=1e-5)


_PROCESS = """
import json, sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_default_matmul_precision", "highest")
jax.distributed.initialize(f"127.0.0.1:{sys.argv[1]}", 2, int(sys.argv[2]))
from lco_jax.runtime.axes import MESH_AXES
from lco_jax.config.io import from_json
from lco_jax.embed.embedder import Embedder
from tests import runs
config = from_json(json.loads(sys.argv[4]))
sizes = json.loads(sys.argv[3])
mesh = jax.make_mesh(tuple(sizes), MESH_AXES)
print("RESULT", json.dumps(runs.run_steps(config, mesh)))
vectors = Embedder(config.model.path, mesh=mesh).encode(["a fox", "two women", "x"])
print("VECTORS", json.dumps(vectors.tolist()))
"""


def run_processes(config, sizes, port):
    """What two processes of four devices each say of the same steps."""
    arguments = [str(port), "RANK", json.dumps(sizes), json.dumps(to_json(config))]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESS, *(str(rank) if a == "RANK" else a for a in arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": "."},
        )
        for rank in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err[-3000:]
        yield dict(line.split(" ", 1) for line in out.splitlines() if " " in line)


@pytest.mark.parametrize(
    "sizes", [pytest.param(sizes, marks=pytest.mark.slow) for sizes in ((2, 4, 1), (1, 2, 4))]
)
def test_two_processes(config, plain, sizes, free_port):
    texts = ["a fox", "two women", "x"]
    vectors = Embedder(config.model.path, mesh=meshes.make((1, 1, 1))).encode(texts)
    for said in run_processes(config, sizes, free_port):
        same(json.loads(said["RESULT"]), plain)
        np.testing.assert_allclose(json.loads(said["VECTORS"]), vectors, atol=1e-5)
