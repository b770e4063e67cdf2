"""A config of two runs from one model and their mean: its weights, its vectors, what is kept."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lco_jax.cli.configs import CONFIGS, load_config
from lco_jax.cli.train import main
from lco_jax.config import (
    PREVIOUS_STAGE,
    DataConfig,
    JsonlSource,
    Lora,
    ModelRef,
    Soup,
    Stage,
    Stages,
    TfdsSource,
)
from lco_jax.config.io import ScienceChangedError, to_json
from lco_jax.embed.embedder import Embedder
from lco_jax.train.stages import train_stages
from tests import meshes, runs, tiny
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device")

TEXTS = ["a fox", "two women watch a busy market"]

CONFIG = """
from lco_jax.config import Soup, Stage, Stages
from lco_jax.config.io import from_json
import json

def get_config():
    first, second = (from_json(json.loads(text)) for text in {settings!r})
    return Stages((Stage("first", first), Stage("second", second)), soup=Soup(("first", "second")))
"""


@pytest.fixture(scope="module")
def trained(one_device, tmp_path_factory):
    """The stages, and the folder in which the program has run them."""
    folder = tmp_path_factory.mktemp("soup")
    base = folder / "base"
    tiny.write(base, num_layers=1)
    triplets = [runs.write_triplets(folder / f"{seed}.jsonl", 16, seed) for seed in range(2)]
    configs = [
        runs.make_config(
            base,
            file,
            model=ModelRef(str(base), trainable=Lora(rank=rank, alpha=8), dtype="float32"),
            data=DataConfig((JsonlSource(str(file)),), batch_size=8, num_negatives=negatives),
            num_steps=2,
        )
        for file, rank, negatives in zip(triplets, (4, 2), (1, 0), strict=True)
    ]
    settings = [json.dumps(to_json(config)) for config in configs]
    (folder / "soup.py").write_text(CONFIG.format(settings=settings))
    arguments = ["--config", str(folder / "soup.py"), "--workdir", str(folder / "run")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["launch/train.py", *arguments])
        assert main() == 0
    stages = Stages(
        (Stage("first", configs[0]), Stage("second", configs[1])), soup=Soup(("first", "second"))
    )
    return stages, folder / "run"


def _embed(model: Path):
    return Embedder(model, dtype="float32", mesh=meshes.make((1, 1, 1))).encode(TEXTS)


def test_weights_are_the_mean_and_embed(trained, tmp_path):
    _, workdir = trained
    first, second, soup = (
        load_file(workdir / folder / "model.safetensors")
        for folder in ("first/model", "second/model", "soup")
    )
    assert first.keys() == second.keys() == soup.keys()
    means = {name: (first[name] + second[name]) / 2 for name in first}
    for name, mean in means.items():
        np.testing.assert_allclose(soup[name], mean, atol=1e-6, err_msg=name)
    moved = [name for name in first if np.abs(first[name] - second[name]).max() > 1e-4]
    assert len(moved) == 7  # the linear layers of the decoder's only layer
    oracle = tmp_path / "oracle"
    shutil.copytree(workdir / "first/model", oracle)
    save_file(means, oracle / "model.safetensors", {"format": "pt"})
    vectors = _embed(workdir / "soup")
    np.testing.assert_allclose(vectors, _embed(oracle), atol=1e-5)
    for run in ("first", "second"):
        assert np.abs(vectors - _embed(workdir / run)).max() > 1e-3
    note = json.loads((workdir / "soup" / "soup.json").read_text())
    assert note == {"of": {"first": 2, "second": 2}}


def test_a_soup_is_made_once_and_is_no_other(trained):
    stages, workdir = trained
    file = workdir / "soup" / "model.safetensors"
    written = file.stat().st_mtime_ns
    assert all(stage.result is None for stage in train_stages(stages, str(workdir)))
    assert file.stat().st_mtime_ns == written
    other = dataclasses.replace(stages, soup=Soup(("second", "first")))
    with pytest.raises(ScienceChangedError, match="is the soup of first, second"):
        train_stages(other, str(workdir))


def test_what_is_no_soup_is_refused(trained):
    first, second = trained[0].stages
    with pytest.raises(ValueError, match="name two runs or more"):
        Soup(("first",))
    with pytest.raises(ValueError, match=r"\['third'\] are not there"):
        Stages((first, second), soup=Soup(("first", "third")))
    with pytest.raises(ValueError, match="is the folder of the soup"):
        Stages((first, dataclasses.replace(second, name="soup")), soup=Soup(("first", "soup")))
    follows = dataclasses.replace(second.config, model=ModelRef(PREVIOUS_STAGE))
    with pytest.raises(ValueError, match=r"the same model\.path"):
        Stages((first, Stage("second", follows)), soup=Soup(("first", "second")))


def test_the_shipped_config():
    config = load_config(CONFIGS / "soup_vl_7b.py")
    nli, pairs = (stage.config for stage in config.stages)
    assert config.soup.of == ("nli", "scale_1m")
    assert nli.model == pairs.model and nli.optimizer == pairs.optimizer
    assert nli.data.sources == (TfdsSource("all_nli"),) and nli.data.num_negatives == 1
    assert pairs.data.sources[0].name == "parallel_pairs" and pairs.data.num_negatives == 0
