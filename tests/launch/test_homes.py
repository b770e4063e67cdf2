"""A home after an equals sign, where no shell sees it: `--output=~/x` is `--output ~/x`."""

import csv
import sys
from pathlib import Path

import pytest

from lco_jax.cli import scaling
from lco_jax.cli.parse import typed
from lco_jax.cli.train import read_command
from tests import tiny


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("--output=~/x", "--output={home}/x"),
        ("--data.train-file=~", "--data.train-file={home}"),
        ("--output=~nobody-of-this-name/x", "--output=~nobody-of-this-name/x"),
        ("--output=x~/y", "--output=x~/y"),
        ("--train=--config ~/x", "--train=--config ~/x"),
        ("~/x", "~/x"),
    ],
)
def test_words_of_a_command_line(home, word, expected):
    assert typed([word]) == [expected.format(home=home)]


def test_of_a_program(home, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["scaling.py", "--published", "--output=~/fit"])
    monkeypatch.chdir(tmp_path)
    scaling.main()
    assert any((home / "fit").iterdir()) and not Path("~").exists()


def test_of_training(home):
    rows = [["anchor", "positive"], ["a fox", "an animal"], ["a car", "a vehicle"]]
    with (home / "own.csv").open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    tiny.write(home / "model", "qwen2_5_vl", num_layers=1)
    words = ["--data=~/own.csv", "--model=~/model", "--workdir=~/run"]
    _, config, workdir = read_command(words)
    assert workdir == str(home / "run") and config.model.path == str(home / "model")
    assert str(home / "own.csv") in repr(config.data.sources)
