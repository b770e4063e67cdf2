"""How the quickstart ends: a search with the model of its last stage; and its help."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lco_jax.cli import quickstart
from lco_jax.cli.search import main as search
from lco_jax.lab import held_out
from lco_jax.lab.corpora import committed
from lco_jax.search.corpus import kind_of, open_corpus
from lco_jax.train.loop import train
from tests import runs, tiny
from tests.meshes import one_device as one_device

pytestmark = pytest.mark.usefixtures("one_device")

ROOT = Path(__file__).parents[2]


def test_held_out_items(tmp_path):
    file = held_out.write_held_out(tmp_path)
    items = open_corpus(str(file)).items
    kinds = [kind_of(item) for item in items]
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "image": 60,
        "audio": 60,
        "text": 60,
    }
    assert all(Path(path).is_file() for item in items for path in (*item.images, *item.audios))
    trained = {
        line["transcript"]
        for line in committed.read_lines(committed.DATA / "spoken" / "spoken_train.jsonl")
    }
    spoken = [item.id for item in items if item.audios]
    assert not trained & set(spoken) and all(spoken)


def test_the_last_stage_is_the_one_that_no_other_starts_from(tmp_path):
    assert quickstart._last_run(tmp_path) is None
    for name in ("refine", "align"):  # the older one is the last stage, as in a copied folder
        (tmp_path / name / "checkpoints" / "5").mkdir(parents=True)
        (tmp_path / name / "model").mkdir()
        older = ROOT / "tests" / "train" / "older" / f"quickstart_{name}.json"
        shutil.copyfile(older, tmp_path / name / "config.json")
    assert quickstart._last_run(tmp_path) == tmp_path / "refine"
    assert quickstart._last_run(tmp_path / "align") == tmp_path / "align"
    # The control that `benchmarks.lab` trains after it starts from the same model.
    shutil.copytree(tmp_path / "refine", tmp_path / "shuffled")
    manifest = json.loads((tmp_path / "shuffled" / "config.json").read_text())
    manifest["config"]["data"]["shuffled_positives"] = True
    (tmp_path / "shuffled" / "config.json").write_text(json.dumps(manifest))
    assert quickstart._last_run(tmp_path) == tmp_path / "refine"


def test_run_as_a_module_it_says_what_it_does(tmp_path):
    """Its logger is then of no package."""
    command = [sys.executable, "-m", "lco_jax.cli.quickstart", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and "no finished run" in " ".join(result.stderr.split())


def test_it_ends_with_a_search_and_commands_that_work(tmp_path, monkeypatch, capsys):
    """With a model of texts alone, as `--config configs/quickstart_text.py` leaves one."""
    tiny.write(tmp_path / "base", num_layers=1)
    triplets = runs.write_triplets(tmp_path / "triplets.jsonl")
    config = runs.make_config(tmp_path / "base", triplets, num_steps=1)
    run = tmp_path / "run"
    train(config, str(run))
    monkeypatch.setattr(held_out, "_MOST_OF_A_KIND", 5)
    cache = ["--cache", str(tmp_path / "cache")]
    monkeypatch.setattr(sys, "argv", ["quickstart", str(run), *cache])
    assert quickstart.main() == 0
    said = capsys.readouterr().out
    page = (run / "search.html").read_text()
    assert str(run / "search.html") in said and page.count('class="query"') == 3
    assert "nearest of 5 items" in page and "could not be" not in page  # of texts only
    # The first command that it names; it encodes the query only.
    (line,) = [line for line in said.splitlines() if "words of your own" in line]
    arguments = line.split("lco search ")[1].replace('"words of your own"', "WORDS").split()
    arguments = ["a boat" if word == "WORDS" else word for word in arguments]
    monkeypatch.setattr(sys, "argv", ["launch/search.py", *arguments, *cache, "--json"])
    assert search() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["num_items"] == 5 and found["num_encoded"] == 0


def test_help_installs_nothing(tmp_path):
    shutil.copytree(ROOT / "launch", tmp_path / "launch")
    for option in ("--help", "-h"):
        result = subprocess.run(
            ["bash", tmp_path / "launch" / "quickstart.sh", "--config", "x.py", option],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHON": "no-such-python"},
        )
        assert result.returncode == 0 and result.stdout.startswith("usage: bash"), result.stderr
        assert len(result.stdout.splitlines()) < 60 and "--workdir DIR" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["launch"]
