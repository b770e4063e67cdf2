"""A grid of two cells and its arms, from random weights: trained, measured, kept, in a table."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from lco_jax.analysis.bound_runs import compare
from lco_jax.analysis.scaling import fit
from lco_jax.cli.configs import CONFIGS, load_file
from lco_jax.config import (
    Columns,
    Contrastive,
    DataConfig,
    Full,
    Generative,
    JsonlSource,
    LoggingConfig,
    Lora,
    MediaConfig,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    Soup,
    TfdsSource,
    Towers,
    TrainConfig,
)
from lco_jax.config.io import to_json
from lco_jax.data.records import Item, Triplet
from lco_jax.embed.open import open_model
from lco_jax.lab import grid, grid_report
from lco_jax.lab.grid_config import Ability, Arm, FreshModel, LinearProjection, ScalingGrid
from lco_jax.lab.info_nce import batch_losses
from lco_jax.train.soup import average_models
from lco_jax.weights.adapter import merge_lora

_WORDS = ("cat", "dog", "house", "river", "stone", "light", "paper", "green", "music", "glass")
_QUIET = LoggingConfig(progress=False, tensorboard=False, report=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The grid, and the folder in which it has been run."""
    folder = tmp_path_factory.mktemp("grid")
    pairs = [(f"the {a} and the {b}", f"{b}: next to a {a}") for a in _WORDS for b in _WORDS[:2]]
    files = {
        "pairs": [{"anchor": {"text": x}, "positive": {"text": y}} for x, y in pairs],
        "exchanges": [{"prompt": {"text": x}, "response": y} for x, y in pairs],
        "alone": [{"text": y} for _, y in pairs],
    }
    for name, lines in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    sources = {name: JsonlSource(str(folder / f"{name}.jsonl")) for name in files}
    mesh = MeshConfig(data=1, fsdp=1, tensor=1)
    common = {"optimizer": OptimizerConfig(peak_lr=1e-2, warmup_steps=1), "logging": _QUIET}

    def refine(seed):
        return TrainConfig(
            model=ModelRef("", trainable=Lora(rank=2, alpha=4), dtype="float32", towers=()),
            data=DataConfig((sources["pairs"],), batch_size=4, num_negatives=0),
            objective=Contrastive(),
            num_steps=2,
            seed=seed,
            mesh=mesh,
            **common,
        )

    own = ScalingGrid(
        model=FreshModel(
            texts=(sources["pairs"],),
            vocab_size=320,
            num_layers=1,
            hidden_size=32,
            intermediate_size=32,
            vision_layers=1,
            vision_size=16,
            vision_intermediate_size=16,
        ),
        generate=TrainConfig(
            model=ModelRef("", trainable=Towers(decoder=Full()), dtype="float32"),
            data=DataConfig((sources["exchanges"], sources["alone"]), batch_size=8),
            objective=Generative(),
            mesh=mesh,
            **common,
        ),
        refine=refine(0),
        budgets=(0, 3),
        seeds=(0,),
        abilities=(Ability("text", sources["pairs"], sources["exchanges"], sources["alone"]),),
        arms=(
            Arm("first", refine(1)),
            Arm("second one", refine(2)),
            Arm("soup", Soup(("first", "second one"))),
            Arm("projection", refine(1), projection=LinearProjection()),
        ),
    )
    output = folder / "output"
    one = jax.devices()[:1]  # eight would compile for longer and compute the same
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "devices", lambda: one)
        return own, output, grid.run_cells(own, output), grid.run_arms(own, output)


@pytest.mark.slow
def test_cells_are_measured(small):
    _, _, records, _ = small
    nothing, some = records
    assert (nothing["budget"], some["budget"]) == (0, 3)
    losses = [record["generation"]["text"]["nats_per_token"] for record in records]
    assert losses[0] == pytest.approx(np.log(320), abs=0.3)  # random weights know nothing
    assert losses[1] < losses[0] - 0.3
    assert nothing["generation"]["text"]["alone"]["count"] == 20
    for record in records:
        assert record["before"]["text"] != record["after"]["text"]
        assert record["bound"]["kl"] > 0 and record["bound"]["num_samples"] == 8


@pytest.mark.slow
def test_the_bound_holds_in_every_run(small):
    own, _, records, _ = small
    rows = [compare(run) for run in grid_report.bound_runs(records, own)]
    assert all(row["valid"] > row["measured_loss"] > 0 for row in rows)
    assert {row["num_candidates"] for row in rows} == {4}
    # The tokenizer was learned from the triplets; the generative stage read other files.
    assert {len(row["invalid"]) for row in rows} == {1}
    assert rows[0]["invalid"][0].startswith("its tokenizer was learned from /")


@pytest.mark.slow
def test_nothing_is_run_twice_and_other_settings_are_refused(small, monkeypatch):
    own, output, records, arms = small
    monkeypatch.setattr(grid, "train_stages", None)
    monkeypatch.setattr(grid, "train", None)
    assert grid.run_cells(own, output) == records
    assert grid.run_arms(own, output) == arms
    other = dataclasses.replace(own, prior_std=0.1)
    with pytest.raises(ValueError, match="measured with other settings"):
        grid.run_cells(other, output)


def test_records_from_before_a_setting_was_added(tmp_path):
    settings = to_json((TfdsSource("wordnet"),))
    grid._write(tmp_path / "cell.json", {"name": "one"}, settings)
    content = json.loads((tmp_path / "cell.json").read_text())
    assert "columns" not in content["settings"][0]
    # As it was written when fields that were not set were written, too.
    content["settings"] = [
        {name: value for name, value in settings[0].items() if name != "columns"}
    ]
    (tmp_path / "cell.json").write_text(json.dumps(content))
    assert grid._read(tmp_path / "cell.json", settings) == {"name": "one"}
    own = to_json((TfdsSource("wordnet", columns=Columns("anchor", anchor="positive")),))
    with pytest.raises(ValueError, match="measured with other settings"):
        grid._read(tmp_path / "cell.json", own)


def test_records_from_before_a_field_was_renamed(tmp_path):
    settings = to_json((MediaConfig(audio_features="tokens"),))
    file = tmp_path / "cell.json"
    grid._write(file, {"name": "one"}, settings)
    file.write_text(file.read_text().replace('"audio_features"', '"sound_features"'))
    assert grid._read(tmp_path / "cell.json", settings) == {"name": "one"}


@pytest.mark.slow
def test_a_soup_is_the_mean_of_its_runs_also_as_factors(small):
    _, output, _, _ = small
    models = [
        open_model(str(output / "arms" / name / "refine")) for name in ("first", "second-one")
    ]
    soup = average_models(models)
    base = open_model(models[0].base_name)
    query = [m.params["layers"]["attention"]["query"]["kernel"] for m in (*models, soup, base)]
    np.testing.assert_allclose(query[2], (query[0] + query[1]) / 2, atol=1e-7)
    assert np.abs(query[0] - query[1]).max() > 1e-4
    assert (soup.lora.rank, soup.lora.alpha) == (4, 4.0)
    kernel = {"layers": {"attention": {"query": {"kernel": query[3]}}}}
    factors = soup.lora_params["layers"]["attention"]["query"]
    kernel["layers"]["attention"]["query"] |= factors
    merged = merge_lora(kernel, soup.lora.alpha / soup.lora.rank)
    np.testing.assert_allclose(
        merged["layers"]["attention"]["query"]["kernel"], query[2], atol=1e-6
    )
    with pytest.raises(ValueError, match="two models or more"):
        average_models(models[:1])


@pytest.mark.slow
def test_the_table_has_every_cell_and_arm(small, tmp_path):
    own, _, records, arms = small
    panels = grid_report.panels(records)
    fits = {name: fit(panel.points) for name, panel in panels.items()}
    bounds = [compare(run) for run in grid_report.bound_runs(records, own)]
    grid_report.write_report(tmp_path, records, fits, bounds, arms)
    text = (tmp_path / "grid.md").read_text()
    assert "| dependent |" in text and "its tokenizer was learned from" in text
    for name in ("first", "second one", "soup", "projection", "steps00003-seed0", "none"):
        assert f"| {name} |" in text
    assert len(json.loads((tmp_path / "grid.json").read_text())["cells"]) == 2
    assert [arm["after"] != arms[0]["after"] for arm in arms[1:]] == [True, True, True]


def test_cells_whose_prior_saw_the_triplets_are_marked():
    """The shipped grid reads WordNet in both of its stages, and learns its tokenizer from it."""
    own = load_file(CONFIGS / "grids" / "small_vl.py", "get_grid", (ScalingGrid,))
    terms = {"num_candidates": 64, "information": 0.1, "empirical_loss": 3.0, "kl": 1.0}
    terms |= {"num_samples": 10, "temperature": 0.03, "measured_loss": 3.1}
    records = [{"name": str(budget), "budget": budget, "bound": terms} for budget in (0, 20)]
    tokenizer = "its tokenizer was learned from wordnet:train"
    assert [run.invalid for run in grid_report.bound_runs(records, own)] == [
        (tokenizer,),
        ("the prior was trained on wordnet:train", tokenizer),
    ]
    elsewhere = dataclasses.replace(own, model="a/hub-model")
    assert grid_report.bound_runs(records, elsewhere)[0].invalid == ()


def test_batch_losses_by_hand():
    rng = np.random.default_rng(0)
    triplets = [
        Triplet(Item(f"a{i}"), Item(f"p{i}"), (Item(f"n{i}"),) if i else ()) for i in range(3)
    ]
    table = {}

    def encode(items):
        return np.stack([table.setdefault(item, rng.normal(size=4)) for item in items])

    options = {"batch_size": 3, "num_negatives": 1, "temperature": 0.1}
    with jax.set_mesh(jax.sharding.get_mesh()):
        (found,) = batch_losses(encode, triplets, **options)
    unit = {item: vector / np.linalg.norm(vector) for item, vector in table.items()}
    candidates = [t.positive for t in triplets] + [t.negatives[0] for t in triplets[1:]]
    logits = [[unit[t.anchor] @ unit[c] / 0.1 for c in candidates] for t in triplets]
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])
    assert found == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="do not fill a batch"):
        batch_losses(encode, triplets[:2], **options)
