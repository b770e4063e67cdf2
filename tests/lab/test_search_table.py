"""The tables of what was tried for the quickstart."""

import json
from pathlib import Path

import pytest

from benchmarks.lab_alignments import describe_alignment
from benchmarks.lab_search import render
from lco_jax.config import Stage, Stages
from lco_jax.config.io import to_json
from lco_jax.lab.held_apart import for_choices
from lco_jax.lab.recipes import lab_alignment

DOCS = Path(__file__).parents[2] / "docs" / "lab"


@pytest.mark.parametrize("kind", ["mrr", "lookups"])
def test_the_page_is_what_the_trials_make(kind: str):
    trials = json.loads((DOCS / "search.json").read_text())
    assert (DOCS / "search.md").read_text() == render(trials)
    changed = next(trial for trial in json.loads(json.dumps(trials)) if kind in trial)
    for name in changed[kind]["audio->text"]:
        if name not in ("lexical", "over_lexical"):
            changed[kind]["audio->text"][name] += 0.1
    others = [trial for trial in trials if trial["name"] != changed["name"]]
    assert render([changed, *others]) != render(trials)


def test_an_alignment_that_knows_the_development_split_is_refused(tmp_path: Path):
    config = lab_alignment(num_steps=1)
    (chosen,) = for_choices(Stages((Stage("align", config),))).stages
    for name, one in (("fit", chosen.config), ("train", config)):
        manifest = {"config": to_json(one), "data_fingerprint": "", "prompt": {}}
        (tmp_path / name).mkdir()
        content = json.dumps(manifest | {"git_revision": None})
        (tmp_path / name / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"trained on emoji 'train'.*train on 'fit'"):
        describe_alignment(tmp_path / "train", "")
    with pytest.raises(FileNotFoundError):  # goes on to the model, which this run has not left
        describe_alignment(tmp_path / "fit", "")
