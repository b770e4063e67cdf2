"""Low-rank adapters: merged into the weights, and as folders in the format of peft."""

import json
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

from lco_jax.config import Lora
from lco_jax.models.adapter_config import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from lco_jax.runtime.disks import replace_text, writing
from lco_jax.weights.hub import to_host
from lco_jax.weights.tables import Row, Table

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
    replace_text(out / ADAPTER_CONFIG, json.dumps(settings, indent=2) + "\n")
    temporary = out / f".{ADAPTER_WEIGHTS}.partial"
    with writing(out / ADAPTER_WEIGHTS, sum(x.nbytes for x in tensors.values())):
        safetensors.numpy.save_file(tensors, temporary, metadata={"format": "pt"})
        os.replace(temporary, out / ADAPTER_WEIGHTS)


def _target_pattern(rows: Iterable[Row], targets: Iterable[str]) -> str:
    """A regex for the decoder's modules; a list of suffixes would hit the audio tower, too."""
    modules = {_target(row.ours): row.hub.partition(".lora_")[0] for row in rows}
    names = [modules[target].removeprefix("layers.{L}.") for target in targets]
    alternatives = "|".join(re.escape(name) for name in names)
    return rf"(thinker\.)?(model\.)?(language_model\.)?layers\.\d+\.({alternatives})"


def _target(path: str) -> str:
    """The name in `Lora.targets` of the linear layer that a factor belongs to."""
    return path.split("/")[-2]
