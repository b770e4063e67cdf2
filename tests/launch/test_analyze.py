"""`launch/analyze.py` on a tiny model: the numbers of its tables, with and without a comparison."""

import csv
import json
import shutil
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
from tests.data.media_files import random_image
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
    assert [model["name"] for model in content["models"]] == ["before", "after"]
    rows = {(row["model"], int(row["layer"])): row for row in _rows(out / "alignment.csv")}
    gaps = {(row["model"], int(row["layer"])): row for row in _rows(out / "gap.csv")}
    spread = {(row["model"], int(row["layer"])): row for row in _rows(out / "spread.csv")}
    assert len(rows) == len(gaps) == len(spread) == 2 * 4
    for model in content["models"]:
        name = model["name"]
        anchors, positives = states[name]
        joined = model["pairs"]["text-text"]
        assert (joined["num_pairs"], joined["k"]) == (24, 4)
        assert joined["mutual_knn_chance"] == pytest.approx(4 / 23)
        for layer in range(1, 4):
            x, y = anchors[layer], positives[layer]
            expected = align(x, y, ["mutual_knn", "unbiased_cka"], k=4)
            for metric, value in expected.items():
                assert float(rows[name, layer][metric]) == pytest.approx(value, abs=1e-6)
                assert joined["every_layer"][metric][layer][layer] == pytest.approx(value, abs=1e-6)
            gap = modality_gap(x, y)
            assert float(gaps[name, layer]["distance"]) == pytest.approx(gap.distance)
            assert joined["gap"][layer]["paired_cosine"] == pytest.approx(gap.paired_cosine)
            cosine = mean_cosine(np.concatenate([x, y]))
            assert spread[name, layer]["modality"] == "text"
            assert float(spread[name, layer]["mean_cosine"]) == pytest.approx(cosine)
            assert 0 < float(spread[name, layer]["mean_cosine_margin"]) < 0.5
        # All items end with the same token: its embedding is one point.
        assert joined["alignment"]["mutual_knn"][0] is None
        assert model["spread"]["text"]["mean_cosine"][0] == pytest.approx(1, abs=1e-6)
        drawn = model["cosines"]["text"]
        middles = (np.array(drawn["edges"][1:]) + drawn["edges"][:-1]) / 2
        mean = np.average(middles, weights=drawn["density"])
        assert mean == pytest.approx(model["spread"]["text"]["mean_cosine"][-1], abs=0.02)
    assert content["models"][0]["spread"] != content["models"][1]["spread"]
    for figure in ("spread", "cosines", "alignment", "alignment_all", "every_layer"):
        for kind in ("png", "svg"):
            assert (out / f"{figure}.{kind}").stat().st_size > 5000


def test_one_model_with_all_metrics_leaves_no_states(analyze, pairs, tmp_path):
    folder = tiny.write(tmp_path / "model", num_layers=1).folder
    out = tmp_path / "out"
    code, said = analyze("--model", folder, "--pairs", pairs, "--output", out)
    assert code == 0, said
    (model,) = json.loads((out / "analysis.json").read_text())["models"]
    joined = model["pairs"]["text-text"]
    assert len(joined["alignment"]) == 8 and joined["every_layer"] is None
    assert all(np.isfinite(line[1]) for line in joined["alignment"].values())
    assert not (out / "states").exists() and not (out / "every_layer.png").exists()
    code, said = analyze("--model", folder, "--pairs", pairs, "--output", out, "--k", 50)
    assert (code, "k=50 must be in 1..29" in said) == (2, True), said


def test_two_sizes_and_two_kinds_of_pairs_in_one_picture(analyze, pairs, tmp_path, caplog):
    """Models of 3 and 2 layers, before and after, on pairs of texts and of images and texts."""
    sizes = {"large": 3, "small": 2}
    folders = {
        (size, stage): tiny.write(
            tmp_path / size / stage, "qwen2_5_vl", num_layers=layers, seed=seed
        ).folder
        for size, layers in sizes.items()
        for seed, stage in enumerate(("before", "after"))
    }
    images = tmp_path / "images.jsonl"
    lines = []
    for i in range(12):
        random_image(i, (28, 28)).save(tmp_path / f"{i}.png")
        text = {"text": f"{i} {WORDS[i % len(WORDS)]}"}
        lines.append({"anchor": {"image_path": f"{i}.png"}, "positive": text})
    lines += [
        {"anchor": {"text": f"{i} of few"}, "positive": {"image_path": "0.png"}} for i in "ab"
    ]
    images.write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    options = ("--model", *(folders[size, "after"] for size in sizes))
    options += ("--before", *(folders[size, "before"] for size in sizes))
    options += ("--pairs", pairs, images, "--k", 3, "--metrics", "mutual_knn", "--output", out)
    code, said = analyze(*options)
    assert (code, "tell them apart with --names" in said) == (2, True)  # both are called "after"
    code, said = analyze(*options, "--names", "large", "small")
    assert code == 0, said
    assert "left out: text-image (2)" in caplog.text
    models = json.loads((out / "analysis.json").read_text())["models"]
    names = [f"{size} {stage}" for size in sizes for stage in ("before", "after")]
    assert [model["name"] for model in models] == names
    for model in models:
        assert set(model["spread"]) == set(model["cosines"]) == {"text", "image"}
        assert model["pairs"].keys() == {"text-text", "image-text"}
        joined = model["pairs"]["image-text"]
        assert joined["num_pairs"] == 12 and joined["mutual_knn_chance"] == pytest.approx(3 / 11)
        assert len(joined["alignment"]["mutual_knn"]) == sizes[model["model"]] + 1
    rows = _rows(out / "alignment.csv")
    assert {row["pairs"] for row in rows} == {"text-text", "image-text"}
    assert len(rows) == 2 * (4 + 4 + 3 + 3)
    svg = (out / "alignment.svg").read_text()
    assert all(name in svg for name in (*names, "chance", "image-text, 12 pairs"))
    code, said = analyze(*options, "--names", "large")
    assert (code, "--names has 1 and --model 2" in said) == (2, True)


def test_before_is_read_as_after_is(analyze, pairs, tmp_path):
    """The same weights, of which the trained ones cut texts: no figure may show a change."""
    base = tiny.write(tmp_path / "base").folder
    trained = shutil.copytree(base, tmp_path / "trained")
    (trained / "lco_jax.json").write_text('{"profile": "lco", "max_text_tokens": 2}')
    options = ("--pairs", pairs, "--num-pairs", 8, "--k", 3, "--metrics", "mutual_knn")
    found = []
    for number, models in enumerate((("--model", trained, "--before", base), ("--model", base))):
        out = tmp_path / str(number)
        code, said = analyze(*models, *options, "--output", out)
        assert code == 0, said
        found += json.loads((out / "analysis.json").read_text())["models"]
    before, after, alone = found
    assert (before["stage"], after["stage"]) == ("before", "after")
    for part in ("spread", "cosines", "pairs"):
        assert before[part] == after[part]
    assert alone["spread"] != after["spread"]  # reads whole texts


def test_modalities_of_items():
    assert modality(Item("a")) == "text"
    assert modality(Item(" ", images=("a.png",))) == "image"
    assert modality(Item("a", images=("a.png",), audios=("a.wav",))) == "image+audio+text"
    assert modality(Item(videos=("a.mp4",))) == "video"
