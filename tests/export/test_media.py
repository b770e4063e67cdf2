"""Exports of models that read media: images, clips and sounds give our vectors, too."""

import dataclasses
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from jinja2.exceptions import TemplateError
from PIL import Image
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from lco_jax.config import MediaConfig
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.export import folders as exports
from lco_jax.export.folders import VerificationError, export_model
from lco_jax.export.sentence_transformers import MEDIA_VIEW, TEXT_VIEW
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.export import encode_media, runs
from tests.tokenizers import name_media_tokens
from tests.weights import folders

MEDIA = MediaConfig(
    image_max_pixels=8 * 28 * 28,
    video_min_pixels=4 * 28 * 28,
    video_max_pixels=8 * 28 * 28,
)
WITH_CLIPS = dataclasses.replace(MEDIA, after_video="extent")
PICTURES = ("text", "image", "image+text")
CLIPS = ("video", "video+text", "image+video+text")
SOUNDS = ("audio", "audio+text", "image+audio+text")
STAND_IN = Path(__file__).parent / "stand_in"


def write_run(folder: Path, family: str, media: MediaConfig) -> Path:
    base = tiny.write(folder / "base", family, vision=tiny.DEEP_TOWER, num_layers=2).folder
    if "omni" in family:
        name_media_tokens(base)
    return runs.write(folder / "run", base, media=media)


@pytest.fixture(scope="module")
def vl_run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("vl"), "qwen2_5_vl", MEDIA)


@pytest.fixture(scope="module")
def vl_folder(vl_run):
    out = vl_run.parent / "sentence-transformers"
    export_model(str(vl_run), out, "sentence-transformers", verified=False)
    return out


@pytest.fixture(scope="module")
def embedders(beside_torchvision):
    return {case: Embedder(run) for case, run in beside_torchvision.items()}


@pytest.fixture(scope="module")
def beside_torchvision(tmp_path_factory):
    """Runs that a program with torchvision, or what stands in for it, has exported."""
    written = {
        "vl": write_run(tmp_path_factory.mktemp("vl"), "qwen2_5_vl", WITH_CLIPS),
        "omni": write_run(tmp_path_factory.mktemp("omni"), "qwen2_5_omni_thinker", MEDIA),
    }
    paths = [str(Path(__file__).parents[2])]
    if importlib.util.find_spec("torchvision") is None:
        paths.append(str(STAND_IN))
    subprocess.run(
        [sys.executable, encode_media.__file__, *map(str, written.values())],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        check=True,
    )
    return written


def compared(folder):
    """The lowest cosine by reader and modality."""
    verification = json.loads((folder / PROFILE_FILE).read_text())["verification"]
    rows = verification["comparisons"]
    return {(row["reader"], row["modality"]): row["min_cosine"] for row in rows}


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        pytest.param("vl", PICTURES + CLIPS, marks=pytest.mark.slow),
        ("omni", PICTURES + CLIPS + SOUNDS),
    ],
)
def test_sentence_transformers_reads_media_as_we_do(beside_torchvision, embedders, case, kinds):
    run = beside_torchvision[case]
    found = compared(run.parent / "sentence-transformers")
    readers = ("transformers", "sentence-transformers")
    assert found.keys() == {(reader, kind) for reader in readers for kind in kinds}
    assert min(found.values()) >= 0.99999
    first, second, third = encode_media.PICTURES
    items = [
        Item(images=(first,)),
        Item("a small red fox", images=(second,)),
        Item("only words"),
        Item("which of them", images=(second, third)),
        Item("a word"),
    ]
    expected = torch.tensor(embedders[case].encode(items))
    vectors = torch.tensor(np.load(run.parent / "vectors.npy"))
    assert torch.nn.functional.cosine_similarity(vectors, expected).min() >= 0.99999


def test_an_adapter_is_compared_for_every_medium(vl_run, tmp_path):
    export_model(str(vl_run), tmp_path / "adapter", "peft")
    found = compared(tmp_path / "adapter")
    assert found.keys() == {("peft", kind) for kind in PICTURES + CLIPS}
    assert min(found.values()) >= 0.99999


def test_a_tower_tensor_that_is_written_wrongly_is_caught(vl_run, tmp_path, monkeypatch):
    save = exports.save_folder

    def save_wrongly(folder, *args, **options):
        save(folder, *args, **options)
        tensors = folders.read(folder)
        name = "visual.merger.mlp.2.weight"
        tensors[name] = tensors[name].flip(0)
        folders.store(folder, tensors)

    monkeypatch.setattr(exports, "save_folder", save_wrongly)
    with pytest.raises(VerificationError) as caught:
        export_model(str(vl_run), tmp_path / "merged", "merged")
    message = str(caught.value)
    assert all(f"transformers, {kind}: lowest" in message for kind in ("image", *CLIPS))
    assert "transformers, text:" not in message


@pytest.mark.parametrize(
    "item",
    [
        Item("two\n words\n"),
        Item(images=("a", "b")),
        Item('"quoted" \\n {{ text }}', images=("a",)),
        Item(videos=("c",)),
        Item("all", images=("a",), videos=("c",), audios=("s", "t")),
        Item(images=("a",), audios=("s",)),
    ],
)
def test_the_template_writes_turns_as_we_do(beside_torchvision, embedders, item):
    folder = beside_torchvision["omni"].parent / "sentence-transformers"
    content = [
        *({"type": "text", "text": item.text} for _ in [0] if item.text),
        *({"type": "audio", "audio": sound} for sound in item.audios),
        *({"type": "video", "video": clip} for clip in item.videos),
        *({"type": "image", "image": image} for image in item.images),
    ]
    expected = embedders["omni"].processor.prompter.render(item)
    assert render(folder / MEDIA_VIEW, content) == expected
    if not (item.audios or item.videos):
        assert render(folder, content) == expected
    if not item.has_media:
        assert render(folder, item.text) == render(folder / TEXT_VIEW, content) == expected


def render(folder, content):
    root = folder.parent if folder.name in (TEXT_VIEW, MEDIA_VIEW) else folder
    settings = json.loads((root / "sentence_bert_config.json").read_text())["processing_kwargs"]
    return AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, **settings["chat_template"]
    )


@pytest.mark.parametrize(
    ("view", "content", "message"),
    [
        ("", [{"type": "video"}], "videos are embedded by lco_jax"),
        ("", [{"type": "audio"}], "reads text, image only"),
        ("", [{"type": "text", "text": "a"}] * 2, "one text at a time"),
        (TEXT_VIEW, [{"type": "image"}, {"type": "text", "text": "a"}], "reads no media"),
    ],
)
def test_what_cannot_be_read_is_refused(vl_folder, view, content, message):
    with pytest.raises(TemplateError, match=message):
        render(vl_folder / view, content)


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_other_media_are_refused_without_their_view(beside_torchvision, kind):
    folder = beside_torchvision["omni"].parent / "sentence-transformers"
    with pytest.raises(TemplateError, match=r"install torchvision and load it with .*media"):
        render(folder, [{"type": kind}])


@pytest.mark.parametrize("case", ["vl", "omni"])
def test_texts_and_images_need_no_torchvision(beside_torchvision, embedders, case):
    """Written beside torchvision or not, the folder is the same."""
    model = SentenceTransformer(str(beside_torchvision[case].parent / "sentence-transformers"))
    first, second, third = encode_media.PICTURES
    images = [Image.open(io.BytesIO(content)) for content in encode_media.PICTURES]
    inputs = [
        images[0],
        "only words",
        {"text": "a fox", "image": images[1]},
        {"text": "which", "image": images[1:]},
    ]
    expected = embedders[case].encode(
        [
            Item(images=(first,)),
            Item("only words"),
            Item("a fox", images=(second,)),
            Item("which", images=(second, third)),
        ]
    )
    cosines = np.sum(model.encode(inputs, batch_size=2) * expected, axis=1)
    assert cosines.min() >= 0.99999
    audio = {"audio": {"array": np.zeros(16_000, np.float32), "sampling_rate": 16_000}}
    with pytest.raises((TemplateError, ValueError), match=r"install torchvision|'audio' is not"):
        model.encode([audio])
