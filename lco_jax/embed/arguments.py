"""Arguments of sentence-transformers that mean something else here, or nothing: what is said."""

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from pathlib import Path
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

_OUTPUTS = (
    "only the state of the last token leaves the device, since several inputs share a row; "
    "lco_jax.analysis.states has the states of every layer"
)
"""Why there are no vectors of tokens."""

ABSENT: dict[str, str] = {
    **dict.fromkeys(
        ("to", "cpu", "cuda", "half", "float", "bfloat16", "double"),
        "weights stay where they are, as they are; open another Embedder(device=..., dtype=...)",
    ),
    **dict.fromkeys(
        ("fit", "old_fit", "train", "requires_grad_"), "models are trained by launch/train.py"
    ),
    **dict.fromkeys(
        ("add_adapter", "load_adapter", "set_adapter"),
        "a run with low-rank factors is opened as it is, with the factors merged",
    ),
    "evaluate": "launch/evaluate.py and mteb.evaluate(embedder, tasks) evaluate",
    "load": "write Embedder(folder)",
    "eval": "there is no training mode",
    "compile": "programs are compiled when they are first used",
    "forward": "call encode",
}
"""Methods that are not here, and what is."""

MISSING: Any = object()
"""Stands for an argument that was not given."""

_TASKS = (None, "query", "document")
_NOTHING = (None, False, {}, [])


def refuse(call: Callable[..., Any], given: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Refuse arguments of a call by name; one that asks for nothing passes.

    Args:
        given: those that its signature does not have.
        reasons: why some are refused.

    Raises:
        ValueError: an argument is refused or unknown; the message says why.
    """
    where = call.__name__
    for name, value in given.items():
        if name not in reasons:
            parameters = inspect.signature(call).parameters.values()
            known = [taken.name for taken in parameters if taken.kind != taken.VAR_KEYWORD]
            near = difflib.get_close_matches(name, [*known, *reasons], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {known}"
            raise ValueError(f"{where} has no argument {name!r}; {hint}")
        if not any(value is nothing or value == nothing for nothing in _NOTHING):
            raise ValueError(f"{where} takes no {name}: {reasons[name]}")


def given_inputs(options: dict[str, Any]) -> Any:
    """What is to be encoded, under the name that it had in earlier versions.

    Raises:
        ValueError: it is not there.
    """
    if "sentences" not in options:
        raise ValueError("encode was given no inputs")
    return options.pop("sentences")


def check_call(
    encode: Callable[..., Any],
    options: Mapping[str, Any],
    output_value: str | None,
    batch_size: Any,
) -> None:
    """Refuse what `encode` cannot do.

    Raises:
        ValueError: an argument asks for it; the message says why.
    """
    options = dict(options)
    task = options.pop("task", None)
    refuse(encode, options, ENCODE)
    if task not in _TASKS:
        raise ValueError(f"task={task!r} is none of {_TASKS}; there is one way of encoding")
    if output_value != "sentence_embedding":
        raise ValueError(f"output_value={output_value!r}: {_OUTPUTS}")
    check_positive("batch_size", batch_size)


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


def model_name(model: str | Path | None, others: dict[str, Any]) -> str:
    """The model that a constructor is asked for, under either name, which is taken from `others`.

    Raises:
        ValueError: there is none, or both names are given.
    """
    other = others.pop("model_name_or_path", None)
    if None not in (model, other):
        raise ValueError(
            f"model={str(model)!r} and model_name_or_path={str(other)!r} are two names of one "
            "argument; leave one out"
        )
    name = model if other is None else other
    if name is None or not str(name).strip():
        raise ValueError("give a model: a hub folder, a hub id or a run folder")
    return os.path.expanduser(str(name))


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
