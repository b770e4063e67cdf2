"""Model folders and files of weights of which one file is damaged: what becomes of them."""

import contextlib
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from lco_jax.data.encode.template import load_tokenizer
from lco_jax.data.encode.wrapper_media import image_settings, wrapper_media
from lco_jax.embed.open import open_model
from lco_jax.embed.prompts import saved_settings
from lco_jax.models.build import build
from lco_jax.models.config import ModelConfig, read_config
from lco_jax.models.omni import available_towers
from lco_jax.weights.completeness import match_parts
from lco_jax.weights.files import SafetensorsFolder
from lco_jax.weights.finite import copy_finite
from tests.faults.mutations import damaged_bytes, damaged_json, leaves

RIGHT = "right"
NOT_READ = frozenset(
    {
        *("architectures", "attention_dropout", "bos_token_id", "dtype", "eos_token_id"),
        *("initializer_range", "max_position_embeddings", "max_window_layers", "pad_token_id"),
        *("sliding_window", "transformers_version", "use_cache", "user_token_id", "model_type"),
    }
)
"""Fields of `config.json` on which embeddings do not depend (`model_type` of the parts)."""
HAS_DEFAULT = frozenset(
    {
        *("hidden_act", "activation_function", "layer_types", "use_sliding_window", "rope_type"),
        *("tie_word_embeddings", "scale_embedding", "dropout", "activation_dropout"),
        *("seconds_per_chunk", "num_key_value_heads", "position_id_per_seconds"),
    }
)
"""Fields whose default is what the tiny checkpoints have."""


def open_folder(folder: Path) -> None:
    """As embedding opens a model."""
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices("cpu")[:1])
    with jax.set_mesh(mesh):
        open_model(str(folder), dtype="float32")


class Case(NamedTuple):
    """A file of a folder, and the number of its damage."""

    folder: Path
    file: str
    seed: int


def is_right(said: str) -> bool:
    return said == RIGHT


@contextlib.contextmanager
def damaged(case: Case) -> Iterator[Path]:
    """A copy of the folder in which the file is damaged."""
    with tempfile.TemporaryDirectory(dir=case.folder.parent, prefix="case-") as name:
        copy = Path(name) / case.folder.name
        shutil.copytree(case.folder, copy)
        file = copy / case.file
        content = file.read_bytes()
        if file.suffix == ".json":
            file.write_bytes(damaged_json(content.decode(), case.seed))
        else:
            header = 8 + int.from_bytes(content[:8], "little") if ".safe" in file.name else 8192
            dense = min(header, len(content))
            file.write_bytes(damaged_bytes(content, case.seed, dense=dense))
        yield copy


def open_weights(case: Case) -> str:
    """All tensors, as loading reads them."""
    with damaged(case) as folder:
        found = _specs(folder)
    return RIGHT if found == _specs_of_whole(case.folder) else f"other tensors: {found}"


@functools.cache
def _specs_of_whole(folder: Path) -> dict[str, Any]:
    return _specs(folder)


def _specs(folder: Path) -> dict[str, Any]:
    config = read_config(folder)
    source = SafetensorsFolder(folder)
    for part in match_parts(source, config, _shapes(config)):
        for name in part.found.names.values():
            view = source.view(name)
            where = f"{source.file(name)}: tensor {name!r}"
            copy_finite(np.empty(view.shape, np.float32), view, where)
    return {name: str(spec) for name, spec in source.specs.items()}


def _shapes(config: ModelConfig) -> Any:
    mesh = jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), devices=jax.devices("cpu")[:1])
    with jax.set_mesh(mesh):
        return build(config, None, "float32", towers=available_towers(config))[2]


def open_config(case: Case) -> str:
    """The sizes, which fit the weights; what is otherwise in the file is otherwise in them."""
    original = json.loads((case.folder / case.file).read_text())
    with damaged(case) as folder:
        before, after = read_config(case.folder), read_config(folder)
        match_parts(SafetensorsFolder(folder), after, _shapes(after))
        content = json.loads((folder / case.file).read_text())
    if before != after:
        return RIGHT
    old, new = leaves(original), leaves(content)
    absent = {path for path in old if new.get(path) is None}  # what is null is not said
    changed = [path for path in old if path not in absent and old[path] != new[path]]
    gone = [path for path in old if path in absent and "/vision_config/rope_" not in path]
    silent = [path for path in changed if not _names(path) & NOT_READ]
    silent += [path for path in gone if not _names(path) & (NOT_READ | HAS_DEFAULT)]
    return f"ignored: {silent}" if silent else RIGHT


def _names(path: str) -> set[str]:
    return set(path.split("/"))


def open_tokenizer(case: Case) -> str:
    """Whatever transformers makes of the damaged file has an embedding for each of its tokens."""
    with damaged(case) as folder:
        ids = load_tokenizer(folder).get_vocab().values()
        size = read_config(folder).text.vocab_size
    return RIGHT if len(set(ids)) == len(ids) and max(ids) < size else f"ids up to {max(ids)}"


def open_settings(case: Case) -> str:
    """Settings of media, or of sentence-transformers."""
    with damaged(case) as folder:
        if case.file.startswith("config_"):
            saved_settings(folder)
            return RIGHT
        said = image_settings(folder)
        wrapper_media(folder)
        content = json.loads((folder / case.file).read_text())
    content = content.get("image_processor", content)
    names = ("image_mean", "image_std")
    found = [(said.get(name), content.get(name)) for name in names]
    return RIGHT if all(ours == theirs for ours, theirs in found) else f"ignored: {found}"


def convert(case: Case) -> str:
    """A GGUF file as a hub folder, of the sizes of the undamaged one, and without NaN."""
    with damaged(case) as folder:
        found = _converted(folder / case.file)
    same = found == _converted_whole(case.folder / case.file)
    return RIGHT if same else f"other tensors: {found}"


@functools.cache
def _converted_whole(file: Path) -> dict[str, Any]:
    return _converted(file)


def _converted(file: Path) -> dict[str, Any]:
    from lco_jax.lab.gguf import convert_gguf

    with tempfile.TemporaryDirectory(dir=file.parent.parent) as out:
        convert_gguf(file, Path(out))
        return _specs(Path(out))


def read_whisper(case: Case) -> str:
    """The encoder of a CTranslate2 file, of the sizes of the undamaged one, and without NaN."""
    from lco_jax.lab.whisper import read_encoder

    with damaged(case) as folder:
        (before, _), (after, arrays) = (
            read_encoder(place / case.file) for place in (case.folder, folder)
        )
    finite = all(np.isfinite(array).all() for array in _arrays(arrays))
    return RIGHT if finite and before == after else f"{after}, finite: {finite}"


def _arrays(tree: Any) -> Iterator[np.ndarray]:
    if isinstance(tree, dict):
        for inner in tree.values():
            yield from _arrays(inner)
    else:
        yield tree
