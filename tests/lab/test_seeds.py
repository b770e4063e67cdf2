"""Several seeds and arms of the lab in tables: what is averaged, and what is paired."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from lco_jax.config import Lora
from lco_jax.lab.markdown import markdown_table
from lco_jax.lab.recipes import lab_full, quickstart
from lco_jax.lab.scores import PairSet, StageCurve, direction_scores
from lco_jax.lab.seeds import (
    LabRun,
    anisotropy_table,
    changes_table,
    read_run,
    retrieval_table,
    stages_table,
)
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.train.manifest import start_or_resume

LINES = [{"image": f"{number}.png", "positive": str(number)} for number in range(30)]


def make_run(seed, arm="decoder frozen", gain=1.0):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(30, 8))

    def pairs(noise):
        shown = texts + noise * rng.normal(size=texts.shape)
        both = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (shown, texts))
        return EmbeddedPairs(0, *both)

    sets = [PairSet("image", None, LINES, pairs(3.0), pairs(3.0 - 2 * gain), pairs(2.0))]
    train = [{"step": step, "loss": 9.0 - step / 10, "step_seconds": 6.0} for step in range(1, 41)]
    return LabRun(arm, seed, "abc", [StageCurve("speak", "generative", train)], sets)


def write_job(folder, stages, num_pairs=4):
    """A job as training leaves it, in what the tables read."""
    rng = np.random.default_rng(0)
    for name, config in stages.items():
        start_or_resume(str(folder / name), config, data_fingerprint="", prompt={})
        lines = [{"step": n, "kind": "train", "loss": 5.0, "step_seconds": 1.0} for n in (1, 2)]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / name / "metrics.jsonl").write_text(text)
    root = folder / name / "evaluations"
    root.mkdir()
    lines = [{"anchor": f"a{number}", "positive": f"p{number}"} for number in range(num_pairs)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for step in (0, 2):
        vectors = rng.normal(size=(2, num_pairs, 8)).astype(np.float32)
        np.savez(root / f"{step:08d}.npz", anchors=vectors[0], positives=vectors[1])


def cells(table):
    return [line.strip("| \n").split(" | ") for line in table.splitlines()]


def test_retrieval_is_a_mean_over_seeds():
    runs = [make_run(1), make_run(2, arm="other", gain=0.0), make_run(3)]
    head, _, *rows = cells(retrieval_table(runs))
    assert [(row[0], row[1], row[2]) for row in rows] == [
        ("decoder frozen", "2", "image->text"),
        ("decoder frozen", "2", "text->image"),
        ("other", "1", "image->text"),
        ("other", "1", "text->image"),
    ]
    there, back = (dict(zip(head, row, strict=True)) for row in rows[:2])
    chance = sum(1 / rank for rank in range(1, 31)) / 30
    assert float(there["chance"]) == pytest.approx(chance, abs=6e-4)
    frozen = [runs[0].sets[0], runs[2].sets[0]]
    for name, header in (("before", "before"), ("after", "after"), ("lexical", "no decoder")):
        expected = np.mean([getattr(one, name).scores()["mrr"].mean() for one in frozen])
        assert float(there[header]) == pytest.approx(expected, abs=6e-4)
    # The way back looks from texts.
    first = np.mean([one.before.cosines().argmax(0) == np.arange(30) for one in frozen])
    assert float(back["before"]) >= first - 1e-3
    assert back["before"] != there["before"]


def test_changes_are_means_over_seeds_of_paired_differences():
    runs = [make_run(1), make_run(3)]
    head, _, row, _ = cells(changes_table(runs))
    assert row[:2] == ["decoder frozen", "image->text"]
    sets = [run.sets[0] for run in runs]
    before, after = (
        np.array([getattr(one, name).scores()["mrr"].mean() for one in sets])
        for name in ("before", "after")
    )
    change, low, high, *by_seed = map(float, re.findall(r"[+-][\d.]+", row[2]))
    assert change == pytest.approx((after - before).mean(), abs=6e-4)
    assert 0 < low < change < high
    assert by_seed == pytest.approx(after - before, abs=6e-4)
    centred = [direction_scores(one)["image->text"] for one in sets]
    for header, new, old in (
        ("after - before, centred", "after", "centred_before"),
        ("both centred", "centred_after", "centred_before"),
    ):
        expected = np.mean([one[new]["mrr"] - one[old]["mrr"] for one in centred])
        assert float(row[head.index(header)].split()[0]) == pytest.approx(expected, abs=6e-4)


def test_other_tables():
    runs = [make_run(1), make_run(2)]
    _, _, row = cells(anisotropy_table(runs))
    expected = np.mean([mean_cosine(run.sets[0].before.anchors) for run in runs])
    assert row[:2] == ["decoder frozen", "image"] and float(row[2]) == pytest.approx(
        expected, abs=6e-4
    )
    rows = cells(stages_table(runs, ends=2))[2:]
    assert rows[0] == ["decoder frozen", "1", "speak", "40", "4", "8.85", "5.05", "abc"]


def test_jobs_are_read_by_their_folders(tmp_path):
    recipes = {
        "frozen": lab_full(decoder=None),
        "learns": lab_full(decoder=Lora(rank=8)),
        "quick": quickstart(),
    }
    arms = {}
    for name, recipe in recipes.items():
        stages = {stage.name: stage.config for stage in recipe.stages}
        write_job(tmp_path / name, stages)
        run = read_run(str(tmp_path / name), list(stages))
        arms[name] = run.arm
        assert (run.seed, [curve.name for curve in run.curves]) == (42, list(stages))
        assert list(run.configs) == list(stages)
        assert "text->text" in retrieval_table([run])
    assert arms == {
        "frozen": "decoder frozen",
        "learns": "decoder: LoRA 8",
        "quick": "aligned only, 8 layers",
    }
    with pytest.raises(ValueError, match=r"has no two stages of the lab, only \['align'\]"):
        read_run(str(tmp_path / "quick"), ["align"])
    shutil.rmtree(tmp_path / "quick/refine/evaluations")
    with pytest.raises(ValueError, match="run it to its end first"):
        read_run(str(tmp_path / "quick"), ["align", "refine"])


def test_only_seeds_may_differ(tmp_path):
    runs = []
    for seed, steps in ((42, 160), (43, 160), (44, 80)):
        stages = {stage.name: stage.config for stage in lab_full(decoder=None, seed=seed).stages}
        stages["speak"] = dataclasses.replace(stages["speak"], num_steps=steps)
        # Where the stage before has left its model is no difference.
        model = dataclasses.replace(stages["speak"].model, path=f"{seed}/model")
        stages["speak"] = dataclasses.replace(stages["speak"], model=model)
        write_job(tmp_path / str(seed), stages)
        runs.append(read_run(str(tmp_path / str(seed)), list(stages)))
    assert "| decoder frozen | 2 |" in retrieval_table(runs[:2])
    with pytest.raises(ValueError, match=r"42 and 44, differ in stage 'speak'(?s:.*)num_steps"):
        anisotropy_table(runs)
    with pytest.raises(ValueError, match=r"seeds \[42, 42\]: one of them counts twice"):
        changes_table([runs[0], runs[0]])


def test_runs_of_an_arm_have_the_same_pairs():
    other = make_run(2)
    sets = [dataclasses.replace(other.sets[0], lines=LINES[::-1])]
    with pytest.raises(ValueError, match="different pairs"):
        changes_table([make_run(1), dataclasses.replace(other, sets=sets)])


def test_a_row_of_another_length_is_no_table():
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        markdown_table(("a", "b"), [["1", "2"], ["3"]])
