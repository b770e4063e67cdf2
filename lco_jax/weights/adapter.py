"""Low-rank adapters: merged into the weights, and as folders in the format of peft."""

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from lco_jax.config import LORA_TARGETS, Lora
from lco_jax.models.config import ModelConfig
from lco_jax.weights.files import SafetensorsFile
from lco_jax.weights.hub import to_host
from lco_jax.weights.tables import TABLES, Key, Row, Table

_log = logging.getLogger(__name__)

_CONFIG_NAME = "adapter_config.json"
_WEIGHTS_NAME = "adapter_model.safetensors"
_MAX_LISTED = 10

_PLAIN = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "init_lora_weights": (True, False, "gaussian", "eva", "orthogonal"),
    "use_dora": (False,),
    "lora_bias": (False,),
    "use_qalora": (False,),
    "use_bdlora": (),
    "modules_to_save": (),
    "layer_replication": (),
    "target_parameters": (),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
}
"""Values of `adapter_config.json`, besides absent and empty ones, with which an adapter is
W + s B A on an unchanged W and nothing else."""


# ------------------------------------------------------------------------------------ merging


def merge_lora(params: Mapping[str, Any], scale: float) -> dict[str, Any]:
    """`params` with `scale · A B` added to the kernels and the factors gone.

    The sum is taken in float32 and rounded once to the kernel's dtype; shardings stay.
    """
    flat = flatten_dict(params, sep="/")
    merged = {path: leaf for path, leaf in flat.items() if not _is_factor(path)}
    for path in flat:
        if path.endswith("/lora_a"):
            module = path.removesuffix("/lora_a")
            kernel = merged[f"{module}/kernel"]
            factors = flat[f"{module}/lora_a"], flat[f"{module}/lora_b"]
            merged[f"{module}/kernel"] = _merge_stack(kernel, *factors, scale)
    return unflatten_dict(merged, sep="/")


def _is_factor(path: str) -> bool:
    return path.endswith(("/lora_a", "/lora_b"))


@jax.jit
def _merge_stack(
    kernel: Float[Array, "L *shape"],
    lora_a: Float[Array, "L R *inputs"],
    lora_b: Float[Array, "L R *outputs"],
    scale: Float[Array, ""],
) -> Float[Array, "L *shape"]:
    def merge(layer: tuple[Array, Array, Array]) -> Array:
        weight, a, b = layer
        sharding = jax.typeof(weight).sharding
        update = jnp.tensordot(a, b, (0, 0), precision="highest", out_sharding=sharding)
        return (weight.astype(jnp.float32) + scale * update).astype(weight.dtype)

    # Layer by layer, so that the float32 update of only one exists.
    return jax.lax.map(merge, (kernel, lora_a, lora_b))


# ------------------------------------------------------------------------------------- saving


def save_peft(
    out: Path,
    params: Mapping[str, Any],
    table: Table,
    lora: Lora,
    base_name: str,
    revision: str | None = None,
) -> None:
    """Write the low-rank factors in `params` as an adapter that peft loads.

    The adapter goes onto the `...ForCausalLM` or `...ForConditionalGeneration` class of the
    family (Omni: its thinker).

    Args:
        base_name: hub id or folder of the model that the adapter refines.
        revision: of the hub id.
    """
    out = Path(out)
    names = table.adapter()
    tensors = {}
    for path, leaf in flatten_dict(params, sep="/").items():
        if not _is_factor(path):
            continue
        row, values = names.row(path), to_host(leaf)
        for key, layer in zip(row.keys(len(values)), values, strict=True):
            tensors[names.name(key)] = np.ascontiguousarray(row.layout.to_hub(layer))
    if jax.process_index() != 0:
        return
    out.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": base_name,
        "revision": revision,
        "inference_mode": True,
        "r": lora.rank,
        # Readers declare it an integer, and most alphas are.
        "lora_alpha": lora.alpha if lora.alpha % 1 else int(lora.alpha),
        "lora_dropout": lora.dropout,
        "bias": "none",
        "target_modules": _target_pattern(names.rows, lora.targets),
    }
    (out / _CONFIG_NAME).write_text(json.dumps(settings, indent=2) + "\n")
    temporary = out / f".{_WEIGHTS_NAME}.partial"
    safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})
    os.replace(temporary, out / _WEIGHTS_NAME)


def _target_pattern(rows: Iterable[Row], targets: Iterable[str]) -> str:
    """A regex for the decoder's modules; a list of suffixes would hit the audio tower, too."""
    modules = {_target(row.ours): row.hub.partition(".lora_")[0] for row in rows}
    names = [modules[target].removeprefix("layers.{L}.") for target in targets]
    alternatives = "|".join(re.escape(name) for name in names)
    return rf"(thinker\.)?(model\.)?(language_model\.)?layers\.\d+\.({alternatives})"


def _target(path: str) -> str:
    """The name in `Lora.targets` of the linear layer that a factor belongs to."""
    return path.split("/")[-2]


# ------------------------------------------------------------------------------------ loading


def load_peft(folder: Path, config: ModelConfig) -> tuple[dict[str, Any], Lora]:
    """The low-rank factors of a peft adapter on the decoder, and settings whose one scale fits.

    Modules of smaller rank are padded with zeros to the largest, and where peft would scale a
    module differently the difference is folded into its B; layers without an adapter are zero.

    Raises:
        ValueError: the adapter does more than add B A to the decoder's linear layers, or its
            tensors do not fit the model.
    """
    folder = Path(folder)
    settings = _read_settings(folder)
    file = SafetensorsFile(_weights_path(folder))
    table = TABLES[config.family].adapter()
    found = table.assign(file.specs)
    if strange := found.unknown + found.towers + found.ignored + found.doubled:
        raise ValueError(
            f"{file.path}: {len(strange)} tensors are no low-rank factors of a {config.family} "
            f"decoder, or are given twice: {', '.join(strange[:_MAX_LISTED])}"
        )
    if not found.names:
        raise ValueError(f"{file.path}: the adapter holds no tensors")
    ranks = {
        (_module(path), layer): file.specs[name].shape[0]
        for (path, layer), name in found.names.items()
        if path.endswith("/lora_a")
    }
    _check_factors(file, table, found.names, ranks, config)
    scales = {
        (module, layer): _scale(settings, found.names[f"{module}/lora_a", layer], rank)
        for (module, layer), rank in ranks.items()
    }
    rank, scale = max(ranks.values()), max(scales.values())
    sizes = config.text.sizes
    params = {}
    for path in sorted({path for path, _ in found.names}):
        shape = table.row(path).layout.our_shape({**sizes, "R": rank})
        params[path] = np.zeros((sizes["L"], *shape), np.float32)
    for (path, layer), name in found.names.items():
        key = _module(path), layer
        values = table.row(path).layout.to_ours(file.view(name), {**sizes, "R": ranks[key]})
        folds = path.endswith("/lora_b") and scales[key] != scale
        factor = values.astype(np.float32) * (scales[key] / scale if folds else 1.0)
        params[path][layer, : ranks[key]] = factor
    targets = tuple(name for name in LORA_TARGETS if any(_target(path) == name for path in params))
    untouched = sizes["L"] * len(params) // 2 - len(ranks)
    if untouched and jax.process_index() == 0:
        _log.info("%s: %d linear layers have no adapter; their factors are 0", folder, untouched)
    lora = Lora(rank, scale * rank, settings.get("lora_dropout", 0.0), targets)
    return unflatten_dict(params, sep="/"), lora


def _module(path: str) -> str:
    """The linear layer that a factor belongs to."""
    return path.rpartition("/")[0]


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / _CONFIG_NAME
    try:
        settings = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    for name, plain in _PLAIN.items():
        value = settings.get(name)
        if value not in (None, [], {}, *plain):
            raise ValueError(
                f"{path}: {name}={value!r} is not supported"
                + (f"; supported are {plain}" if plain else "")
                + "; merge the adapter with peft and load the merged folder"
            )
    return settings


def _weights_path(folder: Path) -> Path:
    path = folder / _WEIGHTS_NAME
    if not path.exists():
        raise FileNotFoundError(
            f"{folder} has no {_WEIGHTS_NAME}; an adapter stored as a pickle must be saved again "
            "with safetensors"
        )
    return path


def _check_factors(
    file: SafetensorsFile,
    table: Table,
    names: Mapping[Key, str],
    ranks: Mapping[Key, int],
    config: ModelConfig,
) -> None:
    """Raise one error that lists the factors that are missing or do not fit the model."""
    expected_names = {
        (f"{module}/lora_{factor}", layer) for module, layer in ranks for factor in "ab"
    }
    problems = [f"missing {table.name(key)}" for key in expected_names - names.keys()]
    for (path, layer), name in names.items():
        rank = ranks.get((_module(path), layer))
        if rank is None:
            problems.append(f"{name} has no lora_A")
            continue
        if layer >= config.text.num_layers:
            problems.append(f"{name} (the model has {config.text.num_layers} layers)")
            continue
        expected = table.row(path).layout.hub_shape({**config.text.sizes, "R": rank})
        shape = file.specs[name].shape
        if shape != expected:
            problems.append(f"{name} (expected {expected}, found {shape})")
    if problems:
        raise ValueError(
            f"{file.path}: {len(problems)} factors do not fit the model: "
            + ", ".join(sorted(problems)[:_MAX_LISTED])
        )


def _scale(settings: Mapping[str, Any], name: str, rank: int) -> float:
    """The factor of B A in the module that owns the tensor `name`.

    Source: peft get_pattern_key and LoraLayer.update_layer.
    """
    module = name.removeprefix("base_model.model.").partition(".lora_")[0]
    alpha = settings["lora_alpha"]
    for pattern, value in (settings.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
