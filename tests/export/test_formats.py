"""Every format of every family gives our vectors in the library that it is for."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.torch
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from lco_jax.config import Full, MediaConfig, MeshConfig
from lco_jax.embed.embedder import Embedder
from lco_jax.export import probes
from lco_jax.export.folders import export_model
from lco_jax.export.sentence_transformers import TEXT_VIEW
from lco_jax.train.restore import PROFILE_FILE
from tests import tiny
from tests.export import runs
from tests.weights import folders

CASES = {
    "qwen2 tied": ("qwen2", True),
    "qwen2 untied": ("qwen2", False),
    "vl": ("qwen2_5_vl", False),
    "omni thinker": ("qwen2_5_omni_thinker", False),
}
MEDIA = MediaConfig(video_min_pixels=4 * 28 * 28, video_max_pixels=8 * 28 * 28)
TEXTS = (
    "a cat",
    "\n a word",
    "Die Würde 東京 😀",
    "image.png",
    "the quick brown fox jumps over it",
)
LONG = "a person on a horse " * 40


class Case:
    """A run, its base, and the vectors that it gives."""

    def __init__(self, folder: Path, family: str, tied: bool):
        self.folder, self.family = folder, family
        self.base = tiny.write(folder / "base", family, tied=tied, num_layers=2).folder
        (self.base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
        if family == "qwen2_5_vl":
            # As on the hub.
            processor = {"processor_class": "Qwen2_5_VLProcessor"}
            (self.base / "preprocessor_config.json").write_text(json.dumps(processor))
        self.run = runs.write(folder / "run", self.base, media=MEDIA)
        self.vectors = Embedder(self.run).encode(TEXTS)

    def export(self, form: str) -> Path:
        """The run exported, once a module."""
        out = self.folder / form
        if not out.exists():
            export_model(str(self.run), out, form)
        return out


@pytest.fixture(scope="module", params=CASES, ids=CASES.keys())
def case(request, tmp_path_factory):
    return Case(tmp_path_factory.mktemp("case"), *CASES[request.param])


def assert_same(found, expected):
    cosines = torch.nn.functional.cosine_similarity(torch.as_tensor(found), torch.tensor(expected))
    assert cosines.min() >= 0.99999


def load_sentence_transformer(folder: Path) -> SentenceTransformer:
    """Without torchvision, and so as a reader of texts."""
    view = {"subfolder": TEXT_VIEW} if (folder / TEXT_VIEW).exists() else None
    return SentenceTransformer(str(folder), processor_kwargs=view)


def code_of_card(folder: Path):
    """`embed` as the model card defines it for texts."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[-1]
    names = {"folder": str(folder)}
    exec(code, names)
    return names["embed"]


def test_merged_tensors_are_the_base_plus_the_factors(case):
    base, merged = folders.read(case.base), folders.read(case.export("merged"))
    factors = safetensors.torch.load_file(case.export("peft") / "adapter_model.safetensors")
    assert len(factors) == 2 * 7 * 2
    expected = dict(base)
    scale = runs.LORA.alpha / runs.LORA.rank
    for name, a in factors.items():
        if "lora_A" in name:
            target = name.removeprefix("base_model.model.").replace("lora_A.", "")
            target = target.replace("model.language_model.", "model.")
            expected[target] = base[target] + scale * factors[name.replace("lora_A", "lora_B")] @ a
    assert merged.keys() == base.keys()
    touched = {name for name in base if not torch.equal(expected[name], base[name])}
    assert len(touched) == 7 * 2
    for name, value in merged.items():
        if name in touched:
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-5)
        else:
            assert torch.equal(value, base[name]), name


def test_merged_gives_our_vectors_through_the_chat_template(case):
    folder = case.export("merged")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    prompt = "\nSummarize the above text in one word:"
    turns = [[{"role": "user", "content": text + prompt}] for text in TEXTS]
    inputs = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_dict=True, return_tensors="pt"
    )
    with torch.inference_mode():
        assert_same(model.eval()(**inputs).last_hidden_state[:, -1], case.vectors)
    golden = json.loads((folder / "golden.json").read_text())
    assert golden["dimension"] == 32
    probe = golden["probes"][0]
    assert probe["token_ids"] == inputs["input_ids"][0][inputs["attention_mask"][0] == 1].tolist()
    assert probe["first_components"] == probe["vector"][:8]
    np.testing.assert_allclose(probe["vector"], Embedder(folder).encode(probe["text"]), atol=1e-5)


@pytest.mark.parametrize("form", ["merged", "peft", "sentence-transformers"])
def test_the_code_of_the_model_card_gives_our_vectors(case, form):
    assert_same(code_of_card(case.export(form))(list(TEXTS)), case.vectors)


@pytest.mark.parametrize("form", ["merged", "sentence-transformers"])
def test_an_export_is_a_model_of_ours(case, form):
    exported = Embedder(case.export(form))
    np.testing.assert_allclose(exported.encode(TEXTS), case.vectors, atol=2e-6)
    assert exported.processor.prompter.max_text_tokens == 60


def test_sentence_transformers_cuts_as_we_do_and_takes_no_prompt(case):
    model = load_sentence_transformer(case.export("sentence-transformers"))
    expected = Embedder(case.run).encode([LONG, *TEXTS])
    assert_same(model.encode([LONG, *TEXTS]), expected)
    assert_same(model.encode_query(list(TEXTS)), case.vectors)
    assert model.get_embedding_dimension() == 32
    with pytest.raises(Exception, match="one text at a time"):
        model.encode("a cat", prompt="Represent this: ")


def test_the_record_says_what_was_compared(case):
    record = json.loads((case.export("sentence-transformers") / PROFILE_FILE).read_text())
    assert "license: apache-2.0" in (case.export("merged") / "README.md").read_text()
    assert (record["run"], record["step"]) == ("run", runs.STEP)
    assert (record["profile"], record["max_text_tokens"]) == ("lco", 60)
    verification = record["verification"]
    assert verification["passed"]
    texts = [row for row in verification["comparisons"] if row["modality"] == "text"]
    plain, sentence = texts
    assert (plain["reader"], sentence["reader"]) == ("transformers", "sentence-transformers")
    # Some texts are cut within a character; the one that is made to be too long is not.
    assert plain["count"] == len(probes.TEXTS) + 1
    assert 10 < sentence["count"] <= plain["count"]
    assert min(plain["min_cosine"], sentence["min_cosine"]) >= 0.99999


def test_a_whole_omni_checkpoint(tmp_path):
    base = folders.write(tmp_path / "base", "omni", dtype=torch.float32, num_layers=2)
    run = runs.write(tmp_path / "run", base, media=MEDIA)
    for form in ("merged", "peft", "sentence-transformers"):
        export_model(str(run), tmp_path / form, form)
    merged, original = folders.read(tmp_path / "merged"), folders.read(base)
    assert merged.keys() == original.keys()
    assert torch.equal(merged["token2wav.dit.bias"].float(), original["token2wav.dit.bias"].float())
    thinker = folders.read(tmp_path / "sentence-transformers")
    assert thinker.keys() == {
        name.removeprefix("thinker.") for name in original if name.startswith("thinker.")
    }
    for name, value in thinker.items():
        assert torch.equal(value, merged[f"thinker.{name}"]), name
    vectors = Embedder(run).encode(TEXTS)
    np.testing.assert_allclose(Embedder(tmp_path / "merged").encode(TEXTS), vectors, atol=2e-6)
    model = load_sentence_transformer(tmp_path / "sentence-transformers")
    assert_same(model.encode(list(TEXTS)), vectors)


def test_a_run_of_all_weights_from_a_sharded_mesh(tmp_path):
    base = tiny.write(tmp_path / "base", num_layers=2).folder
    run = runs.write(tmp_path / "run", base, trainable=Full())
    assert jax.device_count() == 8
    export_model(str(run), tmp_path / "out", "merged", mesh=MeshConfig(1, 4, 2))
    vectors = Embedder(tmp_path / "out").encode(TEXTS)
    np.testing.assert_allclose(vectors, Embedder(run).encode(TEXTS), atol=2e-6)
    before, after = folders.read(base), folders.read(tmp_path / "out")
    assert not any(torch.equal(before[name], after[name]) for name in before)


def test_fewer_layers_in_bfloat16(tmp_path):
    base = tiny.write(tmp_path / "base", num_layers=2).folder
    run = runs.write(tmp_path / "run", base, num_layers=1)
    export_model(str(run), tmp_path / "out", "merged", dtype="bfloat16")
    tensors = folders.read(tmp_path / "out")
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    assert not any(".layers.1." in name for name in tensors)
    with pytest.raises(ValueError, match="first 1 of the 2 layers"):
        export_model(str(run), tmp_path / "adapter", "peft")
