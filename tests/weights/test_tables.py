"""Names: every spelling in, the hub's own out."""

import pytest

from lco_jax.weights.tables import HEAD, TABLES, TEXT_ROWS

QUERY = "layers/attention/query/kernel"
NORM = "final_norm/scale"


@pytest.mark.parametrize("family", TABLES)
@pytest.mark.parametrize("prefix", ["", "thinker."])
@pytest.mark.parametrize(
    "decoder",
    ["", "model.", "language_model.", "language_model.model.", "model.language_model."],
)
def test_every_spelling_is_read(family, prefix, decoder):
    table = TABLES[family]
    names = {
        (QUERY, 11): f"{prefix}{decoder}layers.11.self_attn.q_proj.weight",
        (NORM, None): f"{prefix}{decoder}norm.weight",
        ("head/kernel", None): f"{prefix}lm_head.weight",
    }
    found = table.assign(names.values())
    if prefix and "omni" not in family:
        assert found.unknown == list(names.values())
    else:
        assert found.names == names


@pytest.mark.parametrize(
    ("family", "query", "head"),
    [
        ("qwen2", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
        ("qwen3", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
        ("llama", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
        ("mistral", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
        ("qwen2_5_vl", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
        (
            "qwen3_vl",
            "model.language_model.layers.2.self_attn.q_proj.weight",
            "lm_head.weight",
        ),
        (
            "llava_next",
            "language_model.model.layers.2.self_attn.q_proj.weight",
            "language_model.lm_head.weight",
        ),
        (
            "qwen2_5_omni",
            "thinker.model.layers.2.self_attn.q_proj.weight",
            "thinker.lm_head.weight",
        ),
        ("qwen2_5_omni_thinker", "model.layers.2.self_attn.q_proj.weight", "lm_head.weight"),
    ],
)
def test_the_hubs_spelling_is_written(family, query, head):
    assert TABLES[family].name((QUERY, 2)) == query
    assert TABLES[family].name((HEAD.ours, None)) == head


@pytest.mark.parametrize("family", TABLES)
def test_every_row_round_trips(family):
    for table in (TABLES[family], TABLES[family].adapter()):
        names = {key: table.name(key) for row in table.rows for key in row.keys(3)}
        assert len(set(names.values())) == len(names)
        assert table.assign(names.values()).names == names


def test_towers_and_speech_are_told_apart():
    names = [
        "visual.patch_embed.proj.weight",
        "model.visual.merger.ln_q.weight",
        "thinker.visual.blocks.0.attn.q.weight",
        "thinker.model.audio_tower.layers.0.self_attn.q_proj.weight",
        "audio_tower.conv1.weight",
        "talker.model.layers.0.self_attn.q_proj.weight",
        "token2wav.dit.bias",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "score.weight",
    ]
    found = TABLES["qwen2_5_omni"].assign(names)
    assert (found.towers, found.ignored, found.unknown) == (names[:5], names[5:7], names[7:])
    assert TABLES["qwen2_5_vl"].assign(names).unknown == names[2:]
    assert TABLES["qwen2"].assign(names).unknown == names


@pytest.mark.parametrize("family", ["llama", "mistral", "llava_next"])
def test_frequencies_in_old_files_are_not_read(family):
    names = [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "layers.11.self_attn.rotary_emb.inv_freq",
    ]
    found = TABLES[family].assign([*names, "model.layers.0.self_attn.inv_freq"])
    assert (found.unused, found.unknown) == (names, ["model.layers.0.self_attn.inv_freq"])


def test_one_tensor_under_two_names_is_doubled():
    names = ["model.norm.weight", "model.language_model.norm.weight"]
    assert TABLES["qwen2_5_vl"].assign(names).doubled == names[1:]


def test_rows_give_letters():
    factors = TABLES["qwen2"].adapter().rows
    rows = (*TEXT_ROWS, *factors)
    letters = {row.ours: " ".join((*row.stack, row.layout.ours)) for row in rows}
    assert letters[QUERY] == "L D N H"
    assert letters[NORM] == "D"
    assert letters["layers/attention/output/lora_a"] == "L R N H"
    assert letters["layers/attention/output/lora_b"] == "L R D"
    assert len(factors) == 14


def test_unknown_parameter():
    with pytest.raises(KeyError, match="vision/patch"):
        TABLES["qwen2"].row("vision/patch")
