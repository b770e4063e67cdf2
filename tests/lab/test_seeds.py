"""Several seeds and arms of the lab in tables: what is averaged, and what is paired."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from etils import epath

from lco_jax.config import Lora
from lco_jax.lab.conditions import Control
from lco_jax.lab.held_apart import in_fold
from lco_jax.lab.markdown import markdown_table
from lco_jax.lab.pages_with_tables import replace_table
from lco_jax.lab.recipes import lab_full, quickstart
from lco_jax.lab.scores import PairSet, StageCurve, read_pair_sets
from lco_jax.lab.seeds import LabRun, directions, read_run
from lco_jax.lab.tables import (
    anisotropy_table,
    as_numbers,
    changes_table,
    controls_table,
    retrieval_table,
    small_table,
    stages_table,
)
from lco_jax.metrics.anisotropy import mean_cosine
from lco_jax.metrics.comparison import EmbeddedPairs
from lco_jax.train.manifest import start_or_resume

LINES = [{"image": f"{number}.png", "positive": str(number)} for number in range(30)]


def make_run(seed, arm="decoder frozen", gain=1.0, lines=LINES):
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(30, 8))

    def pairs(noise):
        shown = texts + noise * rng.normal(size=texts.shape)
        both = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (shown, texts))
        return EmbeddedPairs(0, *both)

    noises = {"before": 3.0, "features": 2.0, "shuffled": 3.0, "after": 3.0 - 2 * gain}
    evaluations = {name: pairs(noise) for name, noise in noises.items()}
    sets = [PairSet("image", None, lines, evaluations)]
    train = [{"step": step, "loss": 9.0 - step / 10, "step_seconds": 6.0} for step in range(1, 41)]
    return LabRun(arm, seed, "abc", [StageCurve("speak", "generative", train)], sets)


def lines_of_fold(fold):
    return [{**line, "positive": f"{fold} {line['positive']}"} for line in LINES]


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
    head, _, *rows = cells(retrieval_table(directions(runs)))
    assert [row[:4] for row in rows] == [
        ["decoder frozen", "image->text", "2", "30"],
        ["decoder frozen", "text->image", "2", "30"],
        ["other", "image->text", "1", "30"],
        ["other", "text->image", "1", "30"],
    ]
    there, back = (dict(zip(head, row, strict=True)) for row in rows[:2])
    chance = sum(1 / rank for rank in range(1, 31)) / 30
    assert float(there["chance"]) == pytest.approx(chance, abs=6e-4)
    frozen = [runs[0].sets[0].evaluations, runs[2].sets[0].evaluations]
    for name, header in (("before", "before"), ("after", "after"), ("shuffled", "shuffled pairs")):
        expected = np.mean([one[name].scores()["mrr"].mean() for one in frozen])
        assert float(there[header]) == pytest.approx(expected, abs=6e-4)
    lexical = directions(runs)[0].means
    best = max((lexical[one], one.title) for one in lexical if one.condition == "features")
    assert there["strongest without a decoder"].startswith(f"{best[0]:.3f} (mean features")
    # The way back looks from texts.
    first = np.mean([one["before"].cosines().argmax(0) == np.arange(30) for one in frozen])
    assert float(back["before"]) >= first - 1e-3
    assert back["before"] != there["before"]
    assert "all layers, untouched" not in head  # was not measured


def test_changes_are_means_over_seeds_of_paired_differences():
    runs = [make_run(1), make_run(3)]
    found = directions(runs)[0]
    sets = [run.sets[0].evaluations for run in runs]
    treat = {
        "before": lambda pairs: pairs,
        "before, less the common mean": EmbeddedPairs.centred,
        "before, less each side's mean": EmbeddedPairs.centred_by_side,
        "before, each side whitened": EmbeddedPairs.whitened_by_side,
    }
    after = np.array([one["after"].scores()["mrr"].mean() for one in sets])
    for title, treated in treat.items():
        before = np.array([treated(one["before"]).scores()["mrr"].mean() for one in sets])
        change = found.changes[title]
        assert change.by_seed == pytest.approx(after - before, abs=1e-9)
        assert change.mean == pytest.approx((after - before).mean(), abs=1e-9)
        assert change.low < change.mean < change.high
    shuffled = np.mean([one["shuffled"].scores()["mrr"].mean() for one in sets])
    change = found.changes["refined on shuffled pairs"]
    assert change.mean == pytest.approx(after.mean() - shuffled) and change.excludes_zero
    # Of all but the refined one, the strongest is what it is compared with in the end.
    others = {one: mean for one, mean in found.means.items() if one.condition != "after"}
    assert found.means[found.changes["strongest of all"].against] == max(others.values())
    assert found.changes["strongest without a decoder"].against.condition == "features"
    rows = cells(changes_table([found]))[2:]
    assert rows[0][2] == "before" and len(rows) == len(found.changes)
    shown = list(map(float, re.findall(r"[+-][\d.]+", " ".join(rows[0][3:]))))
    one = found.changes["before"]
    assert shown == pytest.approx([one.mean, one.low, one.high, *one.by_seed], abs=6e-4)


def test_folds_are_pooled_by_query():
    runs = [make_run(seed, lines=lines_of_fold(seed)) for seed in (1, 2, 3)]
    found = directions(runs)[0]
    assert not found.same_queries and found.num_queries == 90
    assert found.chance == pytest.approx(sum(1 / rank for rank in range(1, 31)) / 30)
    scores = np.concatenate([run.sets[0].evaluations["after"].scores()["mrr"] for run in runs])
    assert found.means[Control("after")] == pytest.approx(scores.mean())
    assert "| 3 | 90 |" in retrieval_table([found])
    half = lines_of_fold(1)[:15] + lines_of_fold(2)[15:]
    with pytest.raises(ValueError, match="some of which they have in common"):
        directions([runs[0], make_run(4, lines=half)])


def test_numbers_for_prose_are_those_of_the_tables():
    runs = [make_run(1), make_run(3)]
    found = directions(runs)
    numbers = as_numbers(found, runs)["decoder frozen"]
    assert numbers["seeds"] == [1, 3] and numbers["revisions"] == ["abc"]
    assert numbers["minutes_of_steps"] == [4.0, 4.0]
    own = numbers["directions"]["image->text"]
    assert own["mrr"]["after"] == found[0].means[Control("after")]
    assert own["changes"]["before"]["low"] == found[0].changes["before"].low
    changes = {
        (one.name, change.against, change.mean): change
        for one in found
        for change in one.changes.values()
    }.values()
    # The strongest explanation stands under two headings, and counts once.
    headings = sum(len(one.changes) for one in found)
    assert numbers["num_comparisons"] == len(changes) < headings
    assert numbers["num_excluding_zero"] == sum(one.low > 0 or one.high < 0 for one in changes)
    said = small_table(found)
    assert f"there are {len(changes)} in all" in said
    assert "Means of 2 seeds; in brackets 95 % intervals over seeds and queries." in said
    said = small_table(directions(runs[:1]))
    assert "One seed; in brackets 95 % intervals over queries." in said
    assert json.loads(json.dumps(numbers)) == numbers
    bold = [cell for row in cells(controls_table(found)) for cell in row if cell.startswith("**")]
    best = [found[0].changes["strongest of all"], found[1].changes["strongest of all"]]
    expected = [found[i].means[change.against] for i, change in enumerate(best)]
    assert sorted(bold) == sorted(f"**{mean:.3f}**" for mean in expected)


def test_other_tables():
    runs = [make_run(1), make_run(2)]
    _, _, row = cells(anisotropy_table(runs))
    shown = [run.sets[0].evaluations["before"].anchors for run in runs]
    expected = np.mean([mean_cosine(anchors) for anchors in shown])
    assert row[:2] == ["decoder frozen", "image"] and float(row[2]) == pytest.approx(
        expected, abs=6e-4
    )
    rows = cells(stages_table(runs, ends=2))[2:]
    assert rows[0] == ["decoder frozen", "1", "speak", "40", "4.0", "8.85", "5.05", "abc"]


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
        assert "text->text" in retrieval_table(directions([run]))
    assert arms == {
        "frozen": "decoder frozen",
        "learns": "decoder: LoRA 8",
        "quick": "quickstart",
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
    assert "| decoder frozen | text->text | 2 |" in retrieval_table(directions(runs[:2]))
    with pytest.raises(ValueError, match=r"42 and 44, differ in stage 'speak'(?s:.*)num_steps"):
        anisotropy_table(runs)
    with pytest.raises(ValueError, match=r"seeds \[42, 42\]: one of them counts twice"):
        directions([runs[0], runs[0]])


def test_a_row_of_another_length_is_no_table():
    with pytest.raises(ValueError, match="1 cells under 2 headings"):
        markdown_table(("a", "b"), [["1", "2"], ["3"]])


def test_seeds_in_folds_are_seeds_of_one_arm(tmp_path):
    runs = []
    for fold in (1, 2):
        recipe = in_fold(quickstart(), fold)
        stages = {
            stage.name: dataclasses.replace(stage.config, seed=41 + fold) for stage in recipe.stages
        }
        write_job(tmp_path / str(fold), stages)
        runs.append(read_run(str(tmp_path / str(fold)), list(stages)))
    assert [one.name for one in directions(runs)] == ["text->text"]


def test_shuffled_pairs_are_read_beside_the_others(tmp_path):
    stages = {stage.name: stage.config for stage in quickstart().stages}
    write_job(tmp_path / "job", stages)
    shutil.copytree(tmp_path / "job/refine", tmp_path / "job/shuffled")
    rng = np.random.default_rng(7)
    vectors = rng.normal(size=(2, 4, 8)).astype(np.float32)
    folder = tmp_path / "job/shuffled/evaluations"
    np.savez(folder / "00000002.npz", anchors=vectors[0], positives=vectors[1])
    (pairs,) = read_run(str(tmp_path / "job"), list(stages)).sets
    np.testing.assert_array_equal(pairs.evaluations["shuffled"].anchors, vectors[0])
    assert set(pairs.evaluations) == {"before", "shuffled", "after"}
    (folder / "pairs.jsonl").write_text('{"anchor": "another", "positive": "pair"}\n')
    with pytest.raises(ValueError, match="evaluated on different pairs"):
        read_pair_sets(epath.Path(tmp_path / "job/refine"), epath.Path(tmp_path / "job/shuffled"))


def test_tables_go_into_their_place_on_a_page(tmp_path):
    page = tmp_path / "page.md"
    text = "# One\n\n<!-- table: a -->\nold\n<!-- end of table: a -->\n\nRest \\1.\n"
    page.write_text(text)
    assert replace_table(page, "a", "| new \\1 |\n")
    assert page.read_text() == text.replace("old", "| new \\1 |")
    assert not replace_table(page, "b", "| new |")
    page.write_text(text.replace("<!-- end of table: a -->", ""))
    with pytest.raises(ValueError, match=r"1 times .*and 0 times"):
        replace_table(page, "a", "| new |")
