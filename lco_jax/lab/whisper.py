"""The encoder of a Whisper model as the arrays of an audio tower."""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import unflatten_dict
from jaxtyping import Shaped

from lco_jax.lab.ctranslate2 import read_variables
from lco_jax.models.config import AudioConfig
from lco_jax.models.json_files import naming
from lco_jax.weights.rows import WHISPER_ROWS

_WHOLE = {
    "conv1": "conv1",
    "conv2": "conv2",
    "layer_norm": "layer_norm",
    "layer_{L}/self_attention/layer_norm": "layers.{L}.self_attn_layer_norm",
    "layer_{L}/self_attention/linear_1": "layers.{L}.self_attn.out_proj",
    "layer_{L}/ffn/layer_norm": "layers.{L}.final_layer_norm",
    "layer_{L}/ffn/linear_0": "layers.{L}.fc1",
    "layer_{L}/ffn/linear_1": "layers.{L}.fc2",
}
"""Names of CTranslate2 below `encoder/`, and those of transformers' WhisperEncoder."""
_FUSED = "layer_{L}/self_attention/linear_0"
"""Query, key and value, one below the other."""


def read_encoder(file: Path) -> tuple[AudioConfig, dict[str, Any]]:
    """Sizes and arrays (float32) of the encoder in a `model.bin` of CTranslate2.

    The arrays are those of an `AudioTower` of these sizes, under `"audio"`. Whisper's encoder is
    what the Omni tower was made of; they differ in this:

    * Whisper tiny.en reads 80 mels and the public Omni towers 128, so an Omni tower with these
      weights needs `num_mel_bins` 80, and mel frames made with `MelConfig(num_mels=80)`.
    * Whisper encodes 30 s at once, of which all frames attend to all others; Omni encodes chunks
      of 2 s on their own, so there the same weights have less context.
    * Whisper stores its positions (`positions`, one for each 20 ms). They are sinusoids, which the
      Omni tower computes and restarts in each chunk: without them the arrays fit such a tower.
    * Omni makes one feature of two rows and projects it to the decoder's width (`output`).
      Whisper does neither: there is nothing to start that projection from.
    * Whisper's last norm (`final_norm`) comes before its decoder, Omni's before its projection.

    Raises:
        ValueError: no Whisper model in that format; the message names what is missing.
    """
    variables = read_variables(file)
    tensors = _hub_tensors(file, variables)
    num_layers = sum(name.endswith(".fc1.bias") for name in tensors)
    sizes = tensors["conv1.weight"].shape
    heads = _take(file, variables, "num_heads")
    if len(sizes) != 3 or heads.size != 1 or int(heads.item()) < 1:
        raise ValueError(
            f"{file}: encoder/conv1/weight has the shape {sizes} and encoder/num_heads is {heads}; "
            "expected a Whisper model"
        )
    with naming(file):
        config = AudioConfig(
            num_layers=num_layers,
            hidden_size=sizes[0],
            intermediate_size=tensors["layers.0.fc1.bias"].size,
            num_heads=int(heads.item()),
            num_mels=sizes[1],
            chunk_frames=2 * (tensors["embed_positions.weight"].shape or (0,))[0],
            out_size=None,
            has_stored_positions=True,
        )
    _check_shapes(file, tensors, config)
    arrays = {}
    for row in WHISPER_ROWS:
        layers = [
            row.layout.to_ours(tensors[row.name(place)], config.sizes)
            for _, place in row.keys(num_layers)
        ]
        arrays[row.ours] = np.stack(layers) if row.stack else layers[0]
    return config, unflatten_dict(
        {path: np.ascontiguousarray(array, np.float32) for path, array in arrays.items()}, sep="/"
    )


def _hub_tensors(
    file: Path, variables: dict[str, Shaped[np.ndarray, "*shape"]]
) -> dict[str, Shaped[np.ndarray, "*shape"]]:
    """The variables under the names of transformers' WhisperEncoder."""
    num_layers = 0
    while f"encoder/layer_{num_layers}/ffn/linear_0/weight" in variables:
        num_layers += 1
    if not num_layers:
        raise ValueError(f"{file} has no encoder layers; expected a Whisper model")
    tensors = {"embed_positions.weight": _take(file, variables, "position_encodings/encodings")}
    for theirs, ours in _WHOLE.items():
        kinds = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        for layer in range(num_layers) if "{L}" in theirs else (0,):
            for kind, name in zip(kinds, ("weight", "bias"), strict=True):
                tensors[f"{ours}.{name}".format(L=layer)] = _take(
                    file, variables, f"{theirs}/{kind}".format(L=layer)
                )
    for layer in range(num_layers):
        for name in ("weight", "bias"):
            fused = _take(file, variables, f"{_FUSED}/{name}".format(L=layer))
            if not fused.ndim or len(fused) % 3:
                raise ValueError(
                    f"{file}: {name} of layer {layer}'s {_FUSED.rpartition('/')[2]} has the shape "
                    f"{fused.shape}; query, key and value must be as large"
                )
            for part, values in zip("qkv", np.split(fused, 3), strict=True):
                tensors[f"layers.{layer}.self_attn.{part}_proj.{name}"] = values
        if tensors.pop(f"layers.{layer}.self_attn.k_proj.bias").any():
            raise ValueError(f"{file}: layer {layer} has a key bias; Whisper has none")
    return tensors


def _check_shapes(file: Path, tensors: dict[str, np.ndarray], config: AudioConfig) -> None:
    for row in WHISPER_ROWS:
        expected = row.layout.hub_shape(config.sizes)
        for _, place in row.keys(config.num_layers):
            name = row.name(place)
            if tensors[name].shape != expected or tensors[name].dtype.kind != "f":
                raise ValueError(
                    f"{file}: {name} has {tensors[name].dtype} values and the shape "
                    f"{tensors[name].shape}; expected floats and {expected}"
                )


def _take(file: Path, variables: dict[str, np.ndarray], name: str) -> np.ndarray:
    if f"encoder/{name}" not in variables:
        raise ValueError(f"{file} lacks encoder/{name}; expected a Whisper model")
    return variables[f"encoder/{name}"]
