"""Model cards: metadata that the hub reads, no path of this machine; and uploads."""

import json
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub.errors import HfHubHTTPError

from lco_jax.cli.export import main
from lco_jax.config import DataConfig, Evaluation, JsonlSource, ModelRef, TfdsSource, TrainConfig
from lco_jax.export import push
from lco_jax.export.card_data import training_record
from lco_jax.export.folders import export_model
from lco_jax.export.model_card import write_card
from lco_jax.models.families import QWEN2, QWEN2_5_OMNI_THINKER
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.export import runs

MEASURED = {"recall@1": 0.25, "recall@10": 0.5, "mrr": 0.33333, "ndcg@10": 0.4, "mean_cosine": 0.9}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    base = tiny.write(folder / "base", num_layers=1).folder
    header = "---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\nlanguage: en\n---\n"
    (base / "README.md").write_text(header)
    run = runs.write(folder / "run", base)
    lines = [{"step": runs.STEP, "kind": "eval", **MEASURED}, {"step": 9, "kind": "eval"}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = run / "config.json"
    content = json.loads(manifest.read_text())
    content["config"]["evaluation"] = {
        "type": "Evaluation",
        "source": {"type": "TfdsSource", "name": "wordnet", "split": "test"},
    }
    manifest.write_text(json.dumps(content))
    return run


@pytest.mark.parametrize("form", ["merged", "peft", "sentence-transformers"])
def test_the_hub_finds_what_it_asks_for(run, tmp_path, form):
    export_model(str(run), tmp_path / "out", form, verified=False, base_model="Qwen/Qwen2-0.5B")
    card = huggingface_hub.ModelCard.load(tmp_path / "out" / "README.md")
    data = card.data
    assert (data.base_model, data.license, data.license_name) == (
        "Qwen/Qwen2-0.5B",
        "other",
        "qwen",
    )
    assert data.to_dict()["base_model_relation"] == ("adapter" if form == "peft" else "finetune")
    assert (data.language, data.datasets) == (["en"], ["unread"])
    assert data.library_name == {"merged": "transformers"}.get(form, form)
    assert data.pipeline_tag in ("feature-extraction", "sentence-similarity")
    assert {"lco-emb", form} <= set(data.tags)
    found = {result.metric_type: result.metric_value for result in data.eval_results}
    assert found == {"mrr": 0.3333, "ndcg_at_10": 0.4, "recall_at_1": 0.25, "recall_at_10": 0.5}
    assert {result.dataset_name for result in data.eval_results} == {"wordnet"}
    for path in (run, tmp_path):
        assert str(path.parent) not in card.content
    made = "It was made from Qwen/Qwen2-0.5B by 3 steps of contrastive refinement (LoRA factors"
    assert made in " ".join(card.text.split())


def test_data_and_languages_of_a_run(run):
    sources = (
        TfdsSource("all_nli"),
        TfdsSource("parallel_pairs/en-id"),
        TfdsSource("mine/config", data_dir="anywhere"),
        JsonlSource("/some/where/texts.jsonl"),
    )
    config = TrainConfig(
        model=ModelRef("any"), data=DataConfig(sources), evaluation=Evaluation(sources[-1])
    )
    record = training_record(str(run), config, runs.STEP)
    assert record["datasets"] == [
        "sentence-transformers/all-nli",
        "sentence-transformers/parallel-sentences-talks",
        "mine/config",
        "texts",
    ]
    assert record["languages"] == ["en", "id"]
    assert record["evaluation"]["dataset"] == "texts"
    assert training_record(str(run), config, 1)["evaluation"] is None


def test_media_that_the_run_reads_otherwise_are_named(run, tmp_path):
    export_model(str(run), tmp_path / "out", "merged", verified=False)
    record = json.loads((tmp_path / "out" / PROFILE_FILE).read_text())
    for audio, image, named in (
        ("tokens", "all", "audio"),
        ("all", "tokens", "images"),
        ("tokens", "tokens", "images and audio"),
        ("all", "all", None),
    ):
        record["training"] |= {"audio_features": audio, "image_features": image}
        record["modalities"] = kinds = ["text", "image", "audio"]
        said = f"Vectors of {named or ''}"
        is_said = named is not None
        family = QWEN2_5_OMNI_THINKER if kinds else QWEN2
        write_card(tmp_path, record, family=family, base_folder=tmp_path)
        assert (said in (tmp_path / "README.md").read_text()) == is_said


# ---------------------------------------------------------------------------------------- uploads


class Hub:
    """Stands for the hub's API and keeps what it was asked for."""

    def __init__(self):
        self.calls = []

    def whoami(self):
        self.calls.append(("whoami",))

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))


@pytest.fixture
def export(run, tmp_path, monkeypatch):
    def export(*options):
        arguments = (
            "--model",
            run,
            "--format",
            "peft",
            "--output",
            tmp_path / "out",
            "--no-verify",
        )
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments), *options])
        return main()

    return export


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(push.huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(push.huggingface_hub, "get_token", lambda: "hf_x")
    return hub


def test_an_export_is_uploaded(export, hub, tmp_path):
    assert export("--push-to", "me/model", "--private") == 0
    checked, created, uploaded = hub.calls
    assert checked == ("whoami",)
    assert created == ("create", "me/model", {"private": True, "exist_ok": True})
    assert uploaded[1] == "me/model"
    assert {"README.md", "adapter_model.safetensors", PROFILE_FILE} <= set(uploaded[2])


@pytest.mark.parametrize("name", ["model", "a/b/c", "me/mo del"])
def test_what_is_no_name_of_a_repository_is_refused_before_any_work(export, hub, tmp_path, name):
    assert export("--push-to", name) == 2
    assert hub.calls == [] and not (tmp_path / "out").exists()


def test_without_a_token_nothing_is_done(export, hub, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(push.huggingface_hub, "get_token", lambda: None)
    assert export("--push-to", "me/model") == 2
    assert "needs a token that may write: run `hf auth login`" in capsys.readouterr().err
    assert hub.calls == [] and not (tmp_path / "out").exists()


def test_a_token_that_the_hub_does_not_know_is_named(export, hub, tmp_path, monkeypatch, capsys):
    def refuse():
        response = SimpleNamespace(status_code=401, headers={}, request=None)
        raise HfHubHTTPError("no", response=response)

    monkeypatch.setattr(hub, "whoami", refuse)
    assert export("--push-to", "me/model") == 2
    assert "does not accept the token" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
