"""What a family is: one record and one table, and classes of transformers that fit them."""

import dataclasses
import functools
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
from lco_jax.models.text_config import read_text
from lco_jax.models.tokens import MediaTokens
from lco_jax.weights.tables import TABLES, TEXT_ROWS, Table
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
        found = model.config_class.sub_configs[part].model_type
        # Version 5 calls VL's vision tower otherwise than the hub's files do.
        assert found in (model_type, f"{model_type}_vision")
    if media := family.torch_media:
        names = (media.processor, media.image_processor, f"{media.image_processor}Pil")
        assert all(hasattr(transformers, name) for name in (*names, media.video_processor))
        arguments = inspect.signature(model.forward).parameters
        assert media.seconds in arguments
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
    found = [path.name for path in root.rglob("*.py") if quoted.search(path.read_text())]
    assert found == ["families.py"]


# ------------------------------------------------------------------------------- a new family

LLAMA = Family(
    "llama",
    torch_class="LlamaForCausalLM",
    read_text=functools.partial(read_text, has_qkv_bias=False),
)
LLAMA_TABLE = Table(
    LLAMA.name,
    rows=tuple(row for row in TEXT_ROWS if not row.ours.endswith("/bias")),
    adapter_decoder="model.",
)


@pytest.fixture
def llama(tmp_path):
    """As transformers writes it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=2,
    )
    return tiny.save(tmp_path / "base", transformers.LlamaForCausalLM(config), LLAMA.name)


def test_a_record_and_a_table_make_a_family(llama, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="model_type='llama' is not supported"):
        Embedder(llama.folder)
    monkeypatch.setitem(FAMILIES, LLAMA.name, LLAMA)
    monkeypatch.setitem(TABLES, LLAMA.name, LLAMA_TABLE)
    embedder = Embedder(llama.folder, dtype="float32")
    for text, vector in zip(TEXTS, embedder.encode(TEXTS), strict=True):
        (encoded,) = embedder.processor.encode([Item(text)])
        ids = torch.tensor([[*embedder.processor.head.tolist(), *encoded.tokens.tolist()]])
        with torch.no_grad():
            state = llama.decoder(ids).last_hidden_state[0, -1]
        expected = torch.nn.functional.normalize(state, dim=0)
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    run = runs.write(tmp_path / "run", llama.folder)
    for form in ("merged", "peft", "sentence-transformers"):
        found = export_model(str(run), tmp_path / form, form)
        assert not found.failures and not found.unmatched
    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written["architectures"] == [LLAMA.torch_class]
