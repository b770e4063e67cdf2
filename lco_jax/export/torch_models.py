"""The torch model of an exported folder, checked to hold exactly the folder's tensors.

torch and its libraries are imported where they are used: only verification needs them.
"""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lco_jax.models.families import Family
from lco_jax.weights.files import SafetensorsFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_MAX_LISTED = 10


class UnmatchedError(RuntimeError):
    """Tensors of a folder and of its torch model do not match."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers and its notes on deprecations: what matters of a
    folder is compared here.
    """
    from transformers.utils import logging

    level, shows_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if shows_bars:
            logging.enable_progress_bar()


def load(folder: Path, family: Family) -> "PreTrainedModel":
    """The model of a folder in float32.

    Raises:
        UnmatchedError: the folder lacks tensors, or has others.
    """
    import torch
    import transformers

    model, info = getattr(transformers, family.torch_class).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    _check_keys({kind: info[kind] for kind in kinds})
    return model.eval()


def load_adapted(folder: Path, base_folder: Path, family: Family) -> "PreTrainedModel":
    """The base model in float32 with the adapter of a folder on it.

    Raises:
        UnmatchedError: the adapter lacks factors, or has others.
    """
    import peft

    base = load(base_folder, family)
    with warnings.catch_warnings():
        # What peft warns of is compared below.
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        model = peft.PeftModel.from_pretrained(base, folder)
    held = peft.get_peft_model_state_dict(model).keys()
    stored = SafetensorsFile(folder / "adapter_model.safetensors").specs.keys()
    _check_keys({"missing_keys": held - stored, "unexpected_keys": stored - held})
    # The adapter's layers stand in the base model now.
    return base.eval()


def _check_keys(found: Mapping[str, Iterable[Any]]) -> None:
    lines = [
        f"  {len(names)} {kind}: {', '.join(names[:_MAX_LISTED])}"
        for kind, names in ((kind, sorted(map(str, names))) for kind, names in found.items())
        if names
    ]
    if lines:
        raise UnmatchedError("\n".join(["tensors do not match those of the torch model:", *lines]))
