"""`launch/analyze.py` on a tiny model: the numbers of its tables, with and without a comparison."""

import csv
import json
import sys

import numpy as np
import pytest

from lco_jax.analysis.representations import modality
from lco_jax.analysis.states import LayerStates
from lco_jax.cli.analyze import main
from lco_jax.data.records import Item
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.kernel_alignment import align
from lco_jax.metrics.modality_gap import modality_gap
from tests import tiny
from tests.runs import WORDS


@pytest.fixture
def analyze(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch/analyze.py", *map(str, arguments)])
        code = main()
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return run


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    texts = [rng.permutation(WORDS)[: rng.integers(3, 9)] for _ in range(30)]
    # Numbers make all texts different: equal items count once in the spread.
    lines = [
        {"anchor": f"{i} {' '.join(words)}", "positive": f"{' '.join(sorted(words))} {i}"}
        for i, words in enumerate(texts)
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines))
    return file


def _rows(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_two_models(analyze, pairs, tmp_path):
    before, after = (tiny.write(tmp_path / name, seed=i).folder for i, name in enumerate("ab"))
    options = ("--model", after, "--before", before, "--pairs", pairs, "--k", 4)
    out = tmp_path / "out"
    options += ("--output", out, "--num-pairs", 24, "--each-with-each", "--keep-states")
    code, said = analyze(*options, "--metrics", "mutual_knn", "unbiased_cka")
    assert code == 0, said
    states = {
        name: [LayerStates(out / "states" / name / side) for side in ("anchor", "positive")]
        for name in ("before", "after")
    }
    content = json.loads((out / "analysis.json").read_text())
    assert (content["num_pairs"], content["k"]) == (24, 4)
    rows = {(row["model"], int(row["layer"])): row for row in _rows(out / "alignment.csv")}
    gaps = {(row["model"], int(row["layer"])): row for row in _rows(out / "gap.csv")}
    spread = {(row["model"], int(row["layer"])): row for row in _rows(out / "spread.csv")}
    assert len(rows) == len(gaps) == len(spread) == 2 * 4
    for model in content["models"]:
        name = model["name"]
        anchors, positives = states[name]
        for layer in range(1, 4):
            x, y = anchors[layer], positives[layer]
            expected = align(x, y, ["mutual_knn", "unbiased_cka"], k=4)
            for metric, value in expected.items():
                assert float(rows[name, layer][metric]) == pytest.approx(value, abs=1e-6)
                assert model["every_layer"][metric][layer][layer] == pytest.approx(value, abs=1e-6)
            gap = modality_gap(x, y)
            assert float(gaps[name, layer]["distance"]) == pytest.approx(gap.distance)
            assert model["gap"][layer]["paired_cosine"] == pytest.approx(gap.paired_cosine)
            cosine = mean_cosine(np.concatenate([x, y]))
            assert spread[name, layer]["modality"] == "text"
            assert float(spread[name, layer]["mean_cosine"]) == pytest.approx(cosine)
        # All items end with the same token: its embedding is one point.
        assert model["alignment"]["mutual_knn"][0] is None
        assert model["spread"]["text"]["mean_cosine"][0] == pytest.approx(1, abs=1e-6)
    assert content["models"][0]["spread"] != content["models"][1]["spread"]
    for figure in ("spread", "alignment", "every_layer"):
        for kind in ("png", "svg"):
            assert (out / f"{figure}.{kind}").stat().st_size > 5000


def test_one_model_with_all_metrics_leaves_no_states(analyze, pairs, tmp_path):
    folder = tiny.write(tmp_path / "model", num_layers=1).folder
    out = tmp_path / "out"
    code, said = analyze("--model", folder, "--pairs", pairs, "--output", out)
    assert code == 0, said
    (model,) = json.loads((out / "analysis.json").read_text())["models"]
    assert len(model["alignment"]) == 8 and model["every_layer"] is None
    assert all(np.isfinite(line[1]) for line in model["alignment"].values())
    assert not (out / "states").exists() and not (out / "every_layer.png").exists()
    code, said = analyze("--model", folder, "--pairs", pairs, "--output", out, "--k", 50)
    assert (code, "k=50 must be in 1..29" in said) == (2, True), said


def test_modalities_of_items():
    assert modality(Item("a")) == "text"
    assert modality(Item(" ", images=("a.png",))) == "image"
    assert modality(Item("a", images=("a.png",), audios=("a.wav",))) == "image+audio+text"
    assert modality(Item(videos=("a.mp4",))) == "video"
