"""Alignment, refinement with text only, and their report: a tiny job from end to end."""

import json
import re
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import quickstart_picture
from benchmarks.lab_layers import write_pairs
from lco_jax.config import (
    PREVIOUS_STAGE,
    Alignment,
    CheckpointConfig,
    DataConfig,
    Evaluation,
    JsonlSource,
    Lora,
    MediaConfig,
    Memory,
    ModelRef,
    OptimizerConfig,
    Stage,
    Stages,
    Towers,
)
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.errors import MediaError
from lco_jax.data.sources.open import read_pairs
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.open import open_model
from lco_jax.lab.jobs import run_job
from lco_jax.lab.report import SAMPLES_FILE, write_lab_report
from lco_jax.lab.scores import read_pair_sets
from lco_jax.metrics.retrieval import retrieval_metrics
from lco_jax.models.config import read_config
from lco_jax.objectives.traits import make_loader
from lco_jax.runtime import mesh as meshes
from lco_jax.train.manifest import read_manifest
from lco_jax.train.metrics import read_metrics
from tests import runs, tiny
from tests.data.audio_files import plain, tones
from tests.data.media_files import random_image
from tests.meshes import one_device as one_device
from tests.report.narrow import sideways

pytestmark = pytest.mark.usefixtures("one_device")

WORDS = ("fox", "a dog", "market, market", "two women", "The brown", "lazy")
MEDIA = MediaConfig(
    image_min_pixels=56 * 56,
    image_max_pixels=56 * 56,
    audio_max_seconds=2.0,
    audio_when_longer="refuse",
    on_error="skip",
)
_LEXICAL = ("mean features", "nearest tokens", "token chances")
_TREATED = ("less the common mean", "less each side's mean", "each side whitened")
_OF_TEXTS = ("mean tokens", "shared words")
MEMORY = Memory(row_tokens=(128,), frame_rows=(256,), least_shape=(8, 4, 8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    tiny.write(folder / "model", "qwen2_5_omni_thinker", num_layers=2)
    lines, pairs = [], {"image": [], "audio": []}
    for number, words in enumerate(WORDS):
        random_image(number, (56, 56)).save(folder / f"{number}.png")
        seconds = 2.5 if words == "lazy" else 0.6 + 0.2 * number
        (folder / f"{number}.wav").write_bytes(plain(tones(seconds, seed=number)))
        for kind, suffix in (("image", "png"), ("audio", "wav")):
            prompt = {f"{kind}_path": f"{number}.{suffix}"}
            lines.append({"prompt": prompt, "response": words})
            pairs[kind].append({"anchor": prompt, "positive": words})
    write(folder / "exchanges.jsonl", lines)
    for kind, found in pairs.items():
        write(folder / f"{kind}.jsonl", found)
    runs.write_triplets(folder / "triplets.jsonl", 24)
    return folder


def write(file, lines):
    file.write_text("\n".join(map(json.dumps, lines)) + "\n")


def make_align(folder, **changes):
    return runs.make_config(
        folder / "model",
        folder / "exchanges.jsonl",
        model=ModelRef(str(folder / "model"), trainable=Towers(vision=1, audio=1), dtype="float32"),
        data=DataConfig((JsonlSource(str(folder / "exchanges.jsonl")),), 8, media=MEDIA),
        objective=Alignment(),
        optimizer=OptimizerConfig(peak_lr=5e-3, warmup_steps=2),
        memory=MEMORY,
        num_steps=12,
        **changes,
    )


@pytest.fixture(scope="module")
def job(folder, tmp_path_factory):
    refine = runs.make_config(
        folder / "model",
        folder / "triplets.jsonl",
        model=ModelRef(
            PREVIOUS_STAGE, trainable=Lora(rank=4, alpha=8), dtype="float32", num_layers=1
        ),
        num_steps=3,
        checkpoint=CheckpointConfig(every_steps=2),
        evaluation=Evaluation(
            JsonlSource(str(folder / "triplets.jsonl")),
            num_pairs=6,
            others=tuple(JsonlSource(str(folder / f"{kind}.jsonl")) for kind in ("image", "audio")),
        ),
    )
    workdir = tmp_path_factory.mktemp("job")
    stages = Stages((Stage("align", make_align(folder)), Stage("refine", refine)))
    assert run_job(stages, str(workdir), shuffled=True)
    return workdir


def test_alignment_learns_and_moves_towers_alone(folder, job):
    losses = [line["loss"] for line in read_metrics(job / "align" / "metrics.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    before, after = (
        open_model(str(path), dtype="float32").params
        for path in (folder / "model", job / "align" / "model")
    )
    for path, same in jax.tree_util.tree_leaves_with_path(
        jax.tree.map(lambda old, new: bool(np.all(old == new)), before, after)
    ):
        assert same == (path[0].key not in ("vision", "audio")), path


def test_batches_have_one_shape_and_long_recordings_are_left_out(folder):
    config = make_align(folder)
    processor = Processor(folder / "model", read_config(folder / "model"), media=MEDIA)
    with pytest.raises(MediaError, match="longer than max_seconds=2"):
        processor.read_medium("audio", str(folder / "5.wav"))
    loader = make_loader(config, processor, meshes.make_mesh(config.mesh))
    seen = set()
    for step, batch, stats in loader:
        seen.add(stats.shape)
        targets = batch.targets[batch.targets >= 0]
        assert set(targets.tolist()) <= set(batch.vocabulary.ravel().tolist())
        if step == 4:
            break
    assert len(seen) == 1


def _check_controls(numbers, sets, job):
    """What else could explain the figures is beside every one of them."""
    for direction, found in numbers["controls"].items():
        media = direction != "text->text"
        bases = ["after", "before", "all layers, untouched", "refined on shuffled pairs"]
        bases += [f"no decoder: {name}" for name in (_LEXICAL if media else _OF_TEXTS)]
        ways = ["", ", less the common mean", ", less each side's mean", ", each side whitened"]
        assert set(found) == {f"{base}{way}" for base in bases for way in ways}
        changes = numbers["changes"][direction]
        assert changes["strongest without a decoder"]["against"].startswith("no decoder: ")
        explained = {title: x["mrr"] for title, x in found.items() if not title.startswith("after")}
        best = changes["strongest of all"]
        assert explained[best["against"]] == max(explained.values())
        gain = found["after"]["mrr"] - max(explained.values())
        assert best["mrr"]["change"] == pytest.approx(gain, abs=1e-9)
    # What stands under two headings counts once; treated alike is another comparison.
    different = [
        {
            (change["against"], title.endswith("alike") and change["against"].endswith(_TREATED))
            for title, change in changes.items()
        }
        for changes in numbers["changes"].values()
    ]
    assert numbers["num_comparisons"] == sum(map(len, different))
    # All layers are those of the model that alignment leaves.
    audio = sets["audio"]
    embedder = Embedder(job / "align" / "model", media=MediaConfig(), dtype="float32")
    heard = [{"audio_path": str(audio.folder / line["audio"])} for line in audio.lines]
    whole = audio.evaluations["whole"].anchors
    np.testing.assert_allclose(whole, embedder.encode(heard), atol=2e-6)
    assert np.abs(whole - audio.evaluations["before"].anchors).max() > 1e-3
    # The control learned from the same texts, and something else.
    refined, shuffled = (read_manifest(str(job / name)) for name in ("refine", "shuffled"))
    assert shuffled.config.data.shuffled_positives and not refined.config.data.shuffled_positives
    assert shuffled.base_weights == refined.base_weights
    first = audio.evaluations["shuffled"].anchors - audio.evaluations["after"].anchors
    assert np.abs(first).max() > 1e-4


def test_its_pairs_may_be_analysed(folder, job, tmp_path):
    files = {file.stem: file for file in write_pairs(job / "refine", tmp_path)}
    assert set(files) == {"text", "image", "audio"}
    for kind in ("image", "audio"):
        found = read_pairs(JsonlSource(str(files[kind])), None)
        given = read_pairs(JsonlSource(str(folder / f"{kind}.jsonl")), None)[: len(found)]
        assert [pair.positive for pair in found] == [pair.positive for pair in given]
        for own, other in zip(found, given, strict=True):
            paths = [getattr(pair.anchor, f"{kind}s")[0] for pair in (own, other)]
            assert Path(paths[0]).read_bytes() == Path(paths[1]).read_bytes()


def test_report(job):
    found = read_pair_sets(job / "refine", job / "shuffled")
    sets = {pairs.modality: pairs for pairs in found}
    assert set(sets) == {"text", "image", "audio"}
    sample = {"kind": "image", "medium": "aGVsbG8=", "prompt": "What?", "expected": "a fox"}
    (job / SAMPLES_FILE).write_text(json.dumps([{**sample, "response": "<b>a dog"}]))
    page = write_lab_report(str(job), ["align", "refine"]).read_text()
    numbers = json.loads((job / "report" / "report.json").read_text())
    directions = {"text->text", "image->text", "text->image", "audio->text", "text->audio"}
    assert set(numbers["retrieval"]) == set(numbers["controls"]) == directions
    keys = {"recall@1", "recall@10", "mrr", "n", "low", "high"}
    for found in numbers["retrieval"].values():
        assert set(found) == {"chance", "before", "after"}
        assert set(found["before"]) == set(found["after"]) == keys
    assert set(numbers["anisotropy"]) == {"text", "image", "audio"}
    assert [(stage["name"], stage["steps"]) for stage in numbers["stages"]] == [
        ("align", 12),
        ("refine", 3),
    ]
    # The same as from vectors made anew by the model that the job leaves.
    audio = sets["audio"]
    embedder = Embedder(job / "refine", media=MediaConfig())
    heard = [str(audio.folder / line["audio"]) for line in audio.lines]
    vectors = embedder.encode([{"audio_path": path} for path in heard])
    texts = embedder.encode([line["positive"] for line in audio.lines])
    metrics = retrieval_metrics(texts, vectors, np.arange(len(texts)))
    found = numbers["retrieval"]["text->audio"]["after"]
    assert found["mrr"] == pytest.approx(metrics["mrr"], abs=1e-6)
    _check_controls(numbers, sets, job)
    assert page.count("data:audio/") >= 12 and page.count("data:image/png") >= 12
    assert "&lt;b&gt;a dog" in page
    assert not sideways(page)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)


def test_picture_of_what_is_found(job, tmp_path, monkeypatch):
    pytest.importorskip("weasyprint")
    output = tmp_path / "found.png"
    monkeypatch.setattr(sys, "argv", ["picture", str(job), "--output", str(output)])
    quickstart_picture.main()
    with Image.open(output) as image:
        assert image.width == 1840 and image.height > 400
