"""What a family is: one record and one table, and classes of transformers that fit them."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import lco_jax
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.export.folders import export_model
from lco_jax.models.families import FAMILIES, QWEN2_5_OMNI, QWEN2_5_VL, Family
from lco_jax.models.tokens import MediaTokens
from lco_jax.weights.tables import TABLES, Table
from tests import tiny
from tests.export import runs

TEXTS = ["a cat", "the quick brown fox jumps over the lazy dog"]


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES.keys())
def family(request):
    return request.param


def test_a_family_has_a_table_for_each_of_its_towers(family):
    table = TABLES[family.name]
    assert FAMILIES.keys() == TABLES.keys() and table.family == family.name
    assert table.towers.keys() == family.towers.keys()
    assert {"audio_config", "vision_config"} & family.part_types.keys() == {
        f"{tower}_config" for tower in family.towers
    }
    for name in family.towers:
        assert all(row.ours.startswith(f"{name}/") for row in table.tower(name).rows)


def test_its_tokens_are_those_of_its_media(family):
    known = [field.name for field in dataclasses.fields(MediaTokens)]
    assert set(family.tokens) <= set(known)
    towers = {"audio" if kind == "audio" else "vision" for kind in family.kinds}
    assert towers == family.towers.keys()
    assert (family.torch_media is not None) == bool(family.kinds)
    assert not family.audio_takes_turns or {"video", "audio"} <= {*family.kinds}


def test_its_classes_are_in_transformers(family):
    model = getattr(transformers, family.torch_class)
    assert model.config_class.model_type == (family.thinker or family).name
    for part, model_type in family.part_types.items():
        found = model.config_class.sub_configs[part]
        if found is transformers.AutoConfig:
            found = model.config_class.sub_configs_defaults[part]
        found = found.model_type
        # Version 5 calls VL's vision tower otherwise than the hub's files do.
        assert found in (model_type, f"{model_type}_vision")
    if media := family.torch_media:
        names = (media.processor, media.image_processor, f"{media.image_processor}Pil")
        assert all(hasattr(transformers, name) for name in names)
        arguments = inspect.signature(model.forward).parameters
        assert media.image_sizes in arguments
        assert ("video" in family.kinds) == (media.video_processor is not None)
        if media.video_processor:
            assert hasattr(transformers, media.video_processor)
            assert not media.seconds or media.seconds in arguments
        assert ("mm_token_type_ids" in arguments) == media.needs_kinds


def test_where_text_goes_on_behind_a_video():
    kinds = ("image", "video")
    assert [QWEN2_5_VL.after_video(asked) for asked in ("last", "extent")] == ["last", "extent"]
    assert QWEN2_5_VL.readable_kinds(kinds, "last") == ("image",)
    assert QWEN2_5_VL.readable_kinds(kinds, "extent") == kinds
    for asked in ("last", "extent"):
        assert QWEN2_5_OMNI.after_video(asked) == "last"
        assert QWEN2_5_OMNI.readable_kinds(kinds, asked) == kinds


def test_names_stand_in_the_records_alone():
    names = {*FAMILIES, *(name for f in FAMILIES.values() for name in f.part_types.values())}
    names |= {family.torch_class for family in FAMILIES.values()}
    quoted = re.compile("[\"'](" + "|".join(names) + ")[\"']|omni[\"'] in")
    root = Path(lco_jax.__file__).parent
    found = {path.name for path in root.rglob("*.py") if quoted.search(path.read_text())}
    # llama.cpp has names of its own for architectures, of which one is the same.
    assert found == {"families.py", "gguf_reader.py"}


# -------------------------------------------------------------------- families that read texts


def check_programs(checkpoint, folder):
    """Vectors are those of torch, from the folder and from exports of a run on it."""
    embedder = Embedder(checkpoint.folder, dtype="float32")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.folder)
    for text, vector in zip(TEXTS, embedder.encode(TEXTS), strict=True):
        (encoded,) = embedder.processor.encode([Item(text)])
        turn = [{"role": "user", "content": f"{text}\nSummarize the above text in one word:"}]
        ids = tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
        assert [*embedder.processor.head.tolist(), *encoded.tokens.tolist()] == ids
        with torch.no_grad():
            state = checkpoint.decoder(torch.tensor([ids])).last_hidden_state[0, -1]
        expected = torch.nn.functional.normalize(state, dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    run = runs.write(folder / "run", checkpoint.folder)
    for form in ("merged", "peft", "sentence-transformers"):
        found = export_model(str(run), folder / form, form)
        assert not found.failures and not found.unmatched


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("mistral", {"head_dim": 12}),
        ("qwen3", {}),
        pytest.param("qwen3", {"attention_bias": False}, marks=pytest.mark.slow),
        pytest.param("llama", {}, marks=pytest.mark.slow),
        pytest.param("llama", {"attention_bias": True}, marks=pytest.mark.slow),
    ],
)
def test_decoders_embed_and_are_exported(family, changes, tmp_path):
    base = tiny.write(tmp_path / "base", family, num_layers=2, changes=changes)
    check_programs(base, tmp_path)


# ------------------------------------------------------------------------------- a new family

NEW = Family("seed_oss", torch_class="SeedOssForCausalLM")
NEW_TABLE = Table(NEW.name, adapter_decoder="model.")


@pytest.fixture
def new(tmp_path):
    """As transformers writes it."""
    torch.manual_seed(0)
    config = transformers.SeedOssConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        attention_dropout=0.0,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=2,
    )
    return tiny.save(tmp_path / "base", transformers.SeedOssForCausalLM(config), NEW.name)


def test_a_record_and_a_table_make_a_family(new, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="model_type='seed_oss' is not supported"):
        Embedder(new.folder)
    monkeypatch.setitem(FAMILIES, NEW.name, NEW)
    monkeypatch.setitem(TABLES, NEW.name, NEW_TABLE)
    check_programs(new, tmp_path)
    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written["architectures"] == [NEW.torch_class]
