"""A run that goes on to another length, and one that starts from what another has trained."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from lco_jax.config import CheckpointConfig, Memory, MeshConfig, OptimizerConfig
from lco_jax.config.io import ScienceChangedError
from lco_jax.embed.embedder import Embedder
from lco_jax.plan.abstract import abstract_run
from lco_jax.plan.stand_in import on_hand
from lco_jax.train import setup
from lco_jax.train.loop import train
from lco_jax.train.manifest import read_manifest
from lco_jax.train.metrics import read_metrics
from lco_jax.train.optimizer import make_schedule
from tests import meshes, runs, tiny


@pytest.fixture(scope="module", autouse=True)
def compilations(tmp_path_factory):
    """What these runs compile is compiled once."""
    before = jax.config.jax_persistent_cache_min_compile_time_secs
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compilations")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", before)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny.write(folder, num_layers=1)
    return runs.make_config(
        folder,
        runs.write_triplets(folder / "triplets.jsonl"),
        checkpoint=CheckpointConfig(every_steps=2),
        mesh=MeshConfig(-1),
        memory=Memory(row_tokens=(64,), least_shape=(4, 0, 0)),
        optimizer=OptimizerConfig(peak_lr=1e-2, schedule="constant", warmup_steps=2),
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def at_once(config, workdir):
    train(config, str(workdir / "at_once"))
    return losses(workdir / "at_once")


@pytest.fixture(scope="module")
def grown(config, workdir):
    """A run of three steps that has gone on to six."""
    train(of_length(config, 3), str(workdir / "grown"))
    result = train(config, str(workdir / "grown"))
    assert (result.step, result.best) == (6, (6, None))
    return workdir / "grown"


def of_length(config, num_steps):
    return dataclasses.replace(config, num_steps=num_steps)


def losses(workdir):
    lines = read_metrics(workdir / "metrics.jsonl")
    return {line["step"]: line["loss"] for line in lines if line["kind"] == "train"}


@pytest.mark.slow
def test_a_run_of_constant_rate_grows_as_if_planned(config, at_once, grown):
    assert losses(grown) == at_once
    content = json.loads((grown / "config.json").read_text())
    assert content["earlier_lengths"] == [[3, 3]]
    assert content["config"]["num_steps"] == 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"num_steps": 5}, ValueError, "num_steps=5 is less than the 6 steps that the run in"),
        ({"seed": 1, "num_steps": 9}, ScienceChangedError, "seed: 42 in the run, 1 now"),
    ],
)
def test_what_a_run_cannot_become(config, grown, monkeypatch, change, error, message):
    before = (grown / "config.json").read_text()
    monkeypatch.setattr(setup, "state_shapes", None)
    with pytest.raises(error, match=message):
        train(dataclasses.replace(config, **change), str(grown))
    assert (grown / "config.json").read_text() == before


def test_rates_of_steps_that_were_taken_stay():
    config = OptimizerConfig(peak_lr=1.0, schedule="cosine", warmup_steps=0.1)
    short, middle, long = (make_schedule(config, length) for length in (40, 80, 200))
    grown = make_schedule(config, 200, ((30, 40), (50, 80)))
    rates = [float(grown(step)) for step in range(200)]
    expected = [*map(short, range(30)), *map(middle, range(30, 50)), *map(long, range(50, 200))]
    np.testing.assert_array_equal(rates, np.array(expected, np.float32))
    assert rates[49] != rates[50] - (rates[51] - rates[50])


def test_warm_ups_longer_than_the_run_are_refused():
    with pytest.raises(ValueError, match=r"warmup_steps=100 is longer than the run of 40 steps"):
        make_schedule(OptimizerConfig(), 40)
    assert OptimizerConfig(warmup_steps=0.25).warmup_of(40) == 10
    with pytest.raises(ValueError, match=r"warmup_steps=-1 must be a number"):
        OptimizerConfig(warmup_steps=-1)


@pytest.fixture(scope="module")
def refined(config, grown, workdir):
    """A run that starts from another, which is gone afterwards."""
    model = dataclasses.replace(config.model, path=str(grown))
    own = dataclasses.replace(config, model=model, num_steps=2)
    train(own, str(workdir / "refined"))
    with pytest.raises(ScienceChangedError, match=r"model\.path: .* in the run"):
        train(own, str(grown))
    with jax.set_mesh(meshes.make((2, 1, 1))):
        planned = abstract_run(own)
        assert planned.model.text.num_layers == 1
    with on_hand(own, 1) as hand:
        assert hand.folder == Path(config.model.path) and not hand.assumed
    return own, workdir / "refined"


def test_a_run_starts_from_what_another_has_trained(grown, refined):
    own, folder = refined
    assert read_manifest(str(folder)).base_run == {"run": str(grown), "step": 6}
    mesh = meshes.make((1, 1, 1))
    trained, base = (
        Embedder(path, mesh=mesh).encode(["a fox", "two dogs"])
        for path in (grown, folder / "base_model")
    )
    np.testing.assert_allclose(base, trained, atol=1e-5)
    shutil.rmtree(grown)
    assert train(own, str(folder)).step == 2
    refined_vectors = Embedder(folder, mesh=mesh).encode(["a fox", "two dogs"])
    assert np.abs(refined_vectors - base).max() > 1e-3
