"""Whisper's encoder: read from CTranslate2 files, run by our audio tower, against transformers."""

import struct
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from lco_jax.data.media.config import SoundConfig
from lco_jax.data.media.mel import log_mel
from lco_jax.data.media.sound import load_sound
from lco_jax.data.sources.datasets import CACHE
from lco_jax.lab.ctranslate2 import read_variables
from lco_jax.lab.fetch import ensure_whisper
from lco_jax.lab.whisper import read_encoder
from lco_jax.models.audio import AudioTower, _sinusoids

CLIPS = Path(__file__).parents[2] / "data" / "spoken" / "clips.zip"
SIZES = {
    "num_mel_bins": 80,
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 40,
    "max_source_positions": 200,
}
NAMES = {
    "encoder/conv1": "conv1",
    "encoder/conv2": "conv2",
    "encoder/layer_norm": "layer_norm",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "self_attention/linear_1": "self_attn.out_proj",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}


def variables_of(encoder) -> dict[str, np.ndarray]:
    """The arrays of a transformers encoder as CTranslate2 names and fuses them."""
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    variables = {
        "encoder/num_heads": np.array(encoder.config.encoder_attention_heads, np.int16),
        "encoder/position_encodings/encodings": state["embed_positions.weight"],
        "decoder/embeddings/weight": np.ones((5, 3), np.float16),
    }
    places = [("", "")]
    places += [
        (f"encoder/layer_{at}/", f"layers.{at}.") for at in range(encoder.config.encoder_layers)
    ]
    for ours, theirs in places:
        for name, hub in NAMES.items():
            if name.startswith("encoder/") == bool(ours):
                continue
            kinds = ("gamma", "beta") if "norm" in name else ("weight", "bias")
            for kind, part in zip(kinds, ("weight", "bias"), strict=True):
                variables[f"{ours}{name}/{kind}"] = state[f"{theirs}{hub}.{part}"]
        if ours:
            attention = f"{theirs}self_attn"
            fused = [state[f"{attention}.{part}_proj.weight"] for part in "qkv"]
            variables[f"{ours}self_attention/linear_0/weight"] = np.concatenate(fused)
            biases = [state[f"{attention}.{part}_proj.bias"] for part in "qv"]
            biases.insert(1, np.zeros_like(biases[0]))
            variables[f"{ours}self_attention/linear_0/bias"] = np.concatenate(biases)
    return variables


def write_variables(file: Path, variables: dict[str, np.ndarray], version: int = 6) -> Path:
    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<I", 3)]
    parts.append(struct.pack("<I", len(variables)))
    for name, array in variables.items():
        parts += [text(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        parts += [struct.pack("<BI", kinds[array.dtype.name], array.nbytes), array.tobytes()]
    parts += [struct.pack("<I", 1), text("decoder/projection"), text("decoder/embeddings/weight")]
    file.write_bytes(b"".join(parts))
    return file


@pytest.fixture(scope="module")
def encoder() -> WhisperEncoder:
    torch.manual_seed(0)
    encoder = WhisperEncoder(WhisperConfig(**SIZES, attn_implementation="eager")).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            spread = 0.3 if parameter.ndim == 1 else 0.1
            parameter.copy_(spread * torch.randn_like(parameter) + ("norm.weight" in name))
    return encoder.requires_grad_(False)


@pytest.fixture
def file(encoder, tmp_path) -> Path:
    return write_variables(tmp_path / "model.bin", variables_of(encoder))


def run_tower(file: Path, mel: np.ndarray) -> np.ndarray:
    config, params = read_encoder(file)
    tower = jax.eval_shape(lambda: AudioTower(config, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(tower)
    shapes = jax.tree.map(lambda leaf: leaf.shape, nnx.to_pure_dict(state))
    assert jax.tree.map(np.shape, params["audio"]) == shapes
    run = jax.jit(lambda mel, counts: nnx.merge(graph, params["audio"])(mel, counts))
    counts = jnp.full((1, len(mel)), config.chunk_frames, jnp.int32)
    return np.asarray(run(jnp.asarray(mel)[None], counts))[0]


def test_random_weights(encoder, file):
    mel = np.random.default_rng(0).normal(size=(2, 80, 400)).astype(np.float32)
    expected = encoder(torch.tensor(mel)).last_hidden_state.numpy()
    assert expected.std() > 0.1
    np.testing.assert_allclose(run_tower(file, mel), expected, atol=1e-5)


def test_sizes(file):
    config, params = read_encoder(file)
    assert (config.num_layers, config.num_heads, config.num_mels) == (2, 3, 80)
    assert (config.hidden_size, config.intermediate_size, config.chunk_frames) == (24, 40, 400)
    assert config.has_stored_positions and config.out_size is None
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))


def test_bad_files(encoder, file, tmp_path):
    variables = variables_of(encoder)
    assert read_variables(file).keys() == variables.keys()
    bad = tmp_path / "bad.bin"
    with pytest.raises(ValueError, match=r"bad\.bin: no such file"):
        read_encoder(bad)
    for share in (0.001, 0.5, 0.99):
        bad.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
        with pytest.raises(ValueError, match=r"bad\.bin: .*; fetch it again"):
            read_encoder(bad)
    with pytest.raises(ValueError, match="format version 5; expected 6"):
        read_encoder(write_variables(bad, variables, version=5))
    without = {name: value for name, value in variables.items() if name != "encoder/conv2/bias"}
    with pytest.raises(ValueError, match="lacks encoder/conv2/bias; expected a Whisper model"):
        read_encoder(write_variables(bad, without))
    decoder = {name: value for name, value in variables.items() if "decoder" in name}
    with pytest.raises(ValueError, match="has no encoder layers"):
        read_encoder(write_variables(bad, decoder))
    name = "encoder/layer_1/self_attention/linear_0/bias"
    with pytest.raises(ValueError, match="layer 1 has a key bias"):
        read_encoder(write_variables(bad, variables | {name: np.ones(72, np.float32)}))


def real_encoder(variables: dict[str, np.ndarray]) -> WhisperEncoder:
    """The encoder of Whisper tiny.en in transformers, its tensors named here once more."""
    sizes = {"encoder_layers": 4, "encoder_attention_heads": 6, "encoder_ffn_dim": 1536}
    encoder = WhisperEncoder(WhisperConfig(d_model=384, **sizes)).eval().requires_grad_(False)
    state = {"embed_positions.weight": variables["encoder/position_encodings/encodings"]}
    for name, values in variables.items():
        head, _, kind = name.removeprefix("encoder/").rpartition("/")
        layer, _, rest = head.partition("/")
        at = layer.removeprefix("layer_")
        kind = {"gamma": "weight", "beta": "bias"}.get(kind, kind)
        if name.startswith("encoder/layer_") and rest == "self_attention/linear_0":
            for part, third in zip("qkv", np.split(values, 3), strict=True):
                state[f"layers.{at}.self_attn.{part}_proj.{kind}"] = third
        elif name.startswith("encoder/layer_") and rest:
            state[f"layers.{at}.{NAMES[rest]}.{kind}"] = values
        elif f"encoder/{head}" in NAMES:
            state[f"{NAMES[f'encoder/{head}']}.{kind}"] = values
    state = {name: torch.tensor(values) for name, values in state.items()}
    unfit = encoder.load_state_dict(state, strict=False)
    assert not unfit.missing_keys
    assert unfit.unexpected_keys == [f"layers.{at}.self_attn.k_proj.bias" for at in range(4)]
    return encoder


@pytest.mark.skipif(
    not (CACHE / "whisper-tiny-en").exists(), reason="fetched by `launch/fetch.py --whisper`"
)
def test_real_weights_on_real_clips():
    file = ensure_whisper()
    config = SoundConfig(num_mels=80, buffer_seconds=30, max_seconds=30)
    mels = []
    with zipfile.ZipFile(CLIPS) as clips:
        for name in ("activated", "vm-sorry"):
            samples = load_sound(clips.read(f"{name}.ogg"), config)
            mels.append(log_mel(np.pad(samples, (0, config.max_samples - len(samples))), config))
    mel = np.stack(mels)
    found = run_tower(file, mel)
    encoder = real_encoder(read_variables(file))
    expected = encoder(torch.tensor(mel[:1])).last_hidden_state.numpy()
    np.testing.assert_allclose(found[:1], expected, atol=1e-4)
    # In other clips some features are near 13, and transformers in float32 strays further from
    # itself in float64 than that; so their bar is a share of the largest.
    exact = encoder.double()(torch.tensor(mel).double()).last_hidden_state.numpy()
    assert np.abs(found - exact).max() < 1e-4 * np.abs(exact).max()


@pytest.mark.skipif(
    not (CACHE / "whisper-tiny-en").exists(), reason="fetched by `launch/fetch.py --whisper`"
)
def test_real_positions_are_those_that_the_tower_computes():
    stored = read_encoder(ensure_whisper())[1]["audio"]["positions"]
    np.testing.assert_allclose(stored, _sinusoids(1500, 384), atol=2**-11)
