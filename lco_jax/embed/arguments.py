"""Arguments of sentence-transformers that mean something else here, or nothing: what is said."""

import difflib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

CONSTRUCTOR: dict[str, str] = {
    "modules": "a model is a folder, a hub id or a run here, not a list of torch modules",
    "backend": "the backend is JAX; leave it out",
    "use_auth_token": "write token=",
    "processor_kwargs": "sizes and rates of media are media=MediaConfig(image_max_pixels=...), and "
    "max_text_tokens= cuts texts",
    "config_kwargs": "settings of a model are read from its folder; change its config.json",
    "model_card_data": "model cards are written by exports (save_pretrained)",
    "tokenizer_kwargs": "the tokenizer is the checkpoint's own; max_text_tokens= cuts texts",
}
"""What the constructor refuses, and why."""

ENCODE: dict[str, str] = {
    "pool": "one process drives all devices of its mesh; leave pool out and give all inputs",
    "chunk_size": "it belongs to pools of processes; tokens_per_batch= of the Embedder bounds what "
    "a device computes at a time, batch_size= the items",
    "processing_kwargs": "sizes and rates are given beside each medium ({'image': x, 'max_pixels': "
    "n}), or to the Embedder (media=MediaConfig(...))",
}
"""What `encode` refuses, and why."""

OUTPUTS = (
    "only the state of the last token leaves the device, since several inputs share a row; "
    "lco_jax.analysis.states has the states of every layer"
)
"""Why there are no vectors of tokens."""

_NOTHING = (None, False, {}, [])


def refuse(where: str, given: Mapping[str, Any], reasons: Mapping[str, str], known: Sequence[str]):
    """Refuse arguments by name; one that asks for nothing passes.

    Raises:
        ValueError: an argument is refused or unknown; the message says why.
    """
    for name, value in given.items():
        if name not in reasons:
            near = difflib.get_close_matches(name, [*known, *reasons], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {list(known)}"
            raise ValueError(f"{where} has no argument {name!r}; {hint}")
        if not any(value is nothing or value == nothing for nothing in _NOTHING):
            raise ValueError(f"{where} takes no {name}: {reasons[name]}")


def dtype_of(model_kwargs: Mapping[str, Any] | None) -> str | None:
    """The dtype of `model_kwargs={"dtype": ...}` (or `torch_dtype`), by name.

    Raises:
        ValueError: other keys, or another dtype.
    """
    dtype = None
    for key, value in (model_kwargs or {}).items():
        if key not in ("dtype", "torch_dtype"):
            raise ValueError(
                f"model_kwargs[{key!r}] is for transformers and has no meaning here; of "
                "model_kwargs only 'dtype' is read"
            )
        dtype = str(value).removeprefix("torch.")
        if value is None or dtype == "auto":
            dtype = None
        elif dtype not in ("float32", "bfloat16"):
            raise ValueError(f"model_kwargs[{key!r}]={value}: expected 'float32' or 'bfloat16'")
    return dtype


def given(**arguments: Any) -> dict[str, Any]:
    """Those of the arguments that say something."""
    return {name: value for name, value in arguments.items() if value}


def check_positive(name: str, value: Any) -> None:
    """Refuse a number that is not whole and positive; None passes.

    Raises:
        ValueError: it is not.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name}={value!r} must be a positive whole number")


def import_torch() -> ModuleType:
    """torch, of which tensors are.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "tensors are of torch, which is not installed; pip install torch, or leave "
            "convert_to_tensor and convert_to_numpy out"
        ) from error
    return torch
