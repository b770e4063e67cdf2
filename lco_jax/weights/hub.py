"""Hub folders: read into sharded arrays, and written so that transformers loads them."""

import json
import shutil
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.experimental import multihost_utils
from jaxtyping import Array, Shaped

from lco_jax.models.config import ModelConfig
from lco_jax.models.families import FAMILIES, Family
from lco_jax.models.text_config import text_level
from lco_jax.runtime.disks import writing
from lco_jax.weights.adapted import open_weights
from lco_jax.weights.companions import COMPANIONS
from lco_jax.weights.completeness import log_unread, match_parts
from lco_jax.weights.files import TensorSpec
from lco_jax.weights.layout import copy_tiled
from lco_jax.weights.stack import Scratch, load_stack
from lco_jax.weights.tables import Key, Row
from lco_jax.weights.writer import SafetensorsWriter

_MAX_SHARD_BYTES = 5 * 10**9

_HEAD: Key = ("head/kernel", None)
_TABLE: Key = ("embed/table", None)


# ------------------------------------------------------------------------------------ loading


def load_params(
    folder: Path,
    config: ModelConfig,
    abstract: Mapping[str, Any],
    *,
    elsewhere: Collection[str] = (),
) -> dict[str, Any]:
    """The parameters that `abstract` describes, read from a hub folder.

    Each process reads the bytes of its own shards, one stack of layers at a time, and casts
    them to the wanted dtype. Layers beyond the config's and an unwanted output head stay unread.

    Args:
        abstract: nested dict of `jax.ShapeDtypeStruct`, each with its sharding: of the decoder,
            of the towers under `"vision"` and `"audio"`, or of any of them.
        elsewhere: paths of parameters that are not read because a checkpoint holds them.

    Raises:
        ValueError: unknown, missing, doubly mapped or mis-shaped tensors, or NaN in one.
    """
    source = open_weights(folder)
    params, scratch = {}, Scratch()
    with ThreadPoolExecutor() as pool:
        for part in match_parts(source, config, abstract, elsewhere):
            log_unread(source.folder, part)
            for path, leaf in part.leaves.items():
                row = part.table.row(path)
                names = [part.found.names[key] for key in part.keys_of(row)]
                reads = {
                    f"{source.file(name)}: tensor {name!r}": partial(
                        source.read, name, allocate=scratch.take
                    )
                    for name in names
                }
                params[path] = load_stack(row, reads, leaf, pool)
    return unflatten_dict(params, sep="/")


# ------------------------------------------------------------------------------------- saving


def save_folder(
    out: Path,
    params: Mapping[str, Any],
    config: ModelConfig,
    base_folder: Path,
    *,
    dtype: str | None = None,
    thinker_only: bool = False,
    max_shard_bytes: int = _MAX_SHARD_BYTES,
) -> None:
    """Write a hub folder: the base folder with `params` in the place of its own.

    Names are spelled as in the base folder; tensors that `params` does not hold (a tower, an
    unloaded output head, the talker) and the tokenizer and processor files are copied.

    Args:
        dtype: of all floating-point tensors (None: each keeps the one it has in the base).
        thinker_only: of a whole Omni checkpoint, write the thinker as a model of its own, which
            is the form of the released LCO-Embedding checkpoints. Other families have no talker
            to leave out.

    Raises:
        ValueError: `params` do not fit the base folder.
        FileExistsError: `out` already holds weights.
        DiskError: the disk is full or fails; `out` is then left without weights.
    """
    out, base_folder = Path(out), Path(base_folder)
    source = open_weights(base_folder)
    parts = match_parts(source, config, params)
    decoder = parts[-1]
    found = {key: name for part in parts for key, name in part.found.names.items()}
    dropped = {decoder.found.names[key] for key in decoder.found.names.keys() - decoder.keys}
    if thinker_only:
        dropped.update(decoder.found.ignored)
    prefix = decoder.table.prefix if thinker_only else ""
    names = {name: name.removeprefix(prefix) for name in source.specs if name not in dropped}
    specs = {
        name: TensorSpec(source.specs[base].shape, _stored_dtype(source.specs[base].dtype, dtype))
        for base, name in names.items()
    }
    targets = {key: names[base] for key, base in found.items() if base in names}
    held = [
        (part, part.table.row(path), leaf) for part in parts for path, leaf in part.leaves.items()
    ]
    written = {targets[key] for part, row, _ in held for key in part.keys_of(row)}
    tied_head = targets.get(_HEAD) if config.text.tie_embeddings else None
    if jax.process_index() != 0:
        for _, _, leaf in held:
            to_host(leaf)
        return
    out.mkdir(parents=True, exist_ok=True)
    with (
        SafetensorsWriter(out, specs, max_shard_bytes=max_shard_bytes) as writer,
        ThreadPoolExecutor() as pool,
    ):
        for _, row, leaf in held:
            values = to_host(leaf)
            _write_stack(writer, row, values, targets, specs, pool)
            if (row.ours, None) == _TABLE and tied_head:
                # A redundant copy of the embeddings must not outlive a change of them.
                _write_stack(writer, row, values, {_TABLE: tied_head}, specs, pool)
        for base, name in names.items():
            if name not in written and name != tied_head:
                writer.write(name, source.view(base).astype(specs[name].dtype, copy=False))
        with writing(out):
            _copy_companions(base_folder, out)
            _write_config(base_folder, out, config, dtype, thinker_only)


def _stored_dtype(base: np.dtype, wanted: str | None) -> np.dtype:
    return jnp.dtype(wanted) if wanted and jnp.issubdtype(base, jnp.floating) else base


def to_host(array: Shaped[Array | np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """The whole of an array on every process; all processes call it together."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _write_stack(
    writer: SafetensorsWriter,
    row: Row,
    values: Shaped[np.ndarray, "*shape"],
    names: Mapping[Key, str],
    specs: Mapping[str, TensorSpec],
    pool: ThreadPoolExecutor,
) -> None:
    layers = values.reshape(-1, *values.shape[len(row.stack) :])

    def write(key: Key, layer: np.ndarray) -> None:
        spec = specs[names[key]]
        stored = np.empty(spec.shape, spec.dtype)
        copy_tiled(stored, row.layout.to_hub(layer))
        writer.write(names[key], stored)

    list(pool.map(write, row.keys(len(values)), layers))


def _copy_companions(base_folder: Path, out: Path) -> None:
    for name in COMPANIONS:
        if (base_folder / name).exists():
            shutil.copyfile(base_folder / name, out / name)


def _write_config(
    base_folder: Path, out: Path, sizes: ModelConfig, dtype: str | None, thinker_only: bool
) -> None:
    family = FAMILIES[sizes.family]
    config = json.loads((base_folder / "config.json").read_text())
    reader = family.reader_level(config)
    if thinker_only and family.thinker:
        config = reader = _thinker_config(config, family.thinker)
    for level in _levels(config) if dtype else ():
        level |= {key: dtype for key in ("dtype", "torch_dtype") if key in level}
    text, num_layers = text_level(reader), sizes.text.num_layers
    text["num_hidden_layers"] = num_layers
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][:num_layers]
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def _thinker_config(config: dict[str, Any], thinker: Family) -> dict[str, Any]:
    shared = ("tie_word_embeddings", "dtype", "torch_dtype", "transformers_version")
    return {
        **config["thinker_config"],
        **{key: config[key] for key in shared if key in config},
        "model_type": thinker.name,
        "architectures": [thinker.torch_class],
    }


def _levels(config: dict[str, Any]) -> Iterable[dict[str, Any]]:
    yield config
    for value in config.values():
        if isinstance(value, dict):
            yield from _levels(value)
