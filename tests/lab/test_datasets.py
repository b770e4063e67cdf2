"""The datasets that this package makes known, and the fingerprints that runs have of them."""

import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from lco_jax.config import TfdsSource
from lco_jax.data.sources.builder import ArrayRecordBuilder
from lco_jax.data.sources.datasets import GROUP
from lco_jax.data.sources.open import open_source
from lco_jax.lab.corpora.committed import read_described, split_files, write_described

ROOT = Path(__file__).parents[2]


def test_datasets_are_known():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    expected = project["entry-points"][GROUP]
    found = entry_points(group=GROUP)
    values = {name: found[name].value for name in found.names & expected.keys()}
    assert values == expected, "installed before they were named; pip install --no-deps -e ."
    for name in expected:
        builder = found[name].load()
        assert issubclass(builder, ArrayRecordBuilder) and builder.name == name


@pytest.mark.parametrize(
    ("name", "split", "size", "digest"),
    [
        ("wordnet", "train", 6000, "3e9ac30fdbde1f1e"),
        ("wordnet", "test", 500, "358fac4471410294"),
        ("wordnet", "train[:10%]", 600, "1f53a5a0f64f3cc7"),
        ("emoji", "train", 1352, "3f1c45414b0ea18f"),
        ("emoji", "test", 250, "c1b1e961e723caaf"),
        ("emoji/id", "train", 1352, "01bfe85af08f52c7"),
        ("emoji/id", "test", 250, "8470fd9abcfd1f69"),
        ("emoji/th", "test", 250, "62f28b21aa6c2538"),
        ("spoken", "train", 482, "2c8f0b5f95e4ee57"),
        ("spoken", "test", 60, "1d268faaf40d8a41"),
    ],
)
def test_fingerprints_stay(data_dir, name, split, size, digest):
    """Runs are resumed only on data of the fingerprint that they were started with."""
    opened = open_source(TfdsSource(name, split, data_dir))
    assert (opened.name, len(opened), opened.digest) == (f"{name}:{split}", size, digest)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.mark.parametrize(
    ("folder", "archive", "suffix"),
    [("emoji", "pictures.zip", ".png"), ("spoken", "clips.zip", ".ogg")],
)
def test_committed_files_are_written_as_they_are(tmp_path, folder, archive, suffix):
    committed = ROOT / "data" / folder
    splits = {
        split: list(read_described(path, committed / archive, suffix))
        for split, path in split_files(committed, folder).items()
    }
    write_described(tmp_path, folder, splits, archive, suffix)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (committed / path.name).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 3
