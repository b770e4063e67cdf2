"""Whether torch, given nothing but an exported folder, computes our vectors.

torch and its libraries are imported where they are used: only verification needs them.
"""

import gc
import importlib.metadata
import importlib.util
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from lco_jax.export.probes import Probes
from lco_jax.weights.files import SafetensorsFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Format = Literal["merged", "peft", "sentence-transformers"]

_LIBRARIES: Mapping[Format, tuple[str, ...]] = {
    "merged": ("torch", "transformers"),
    "peft": ("torch", "transformers", "peft"),
    "sentence-transformers": ("torch", "transformers", "sentence-transformers"),
}
MODEL_CLASSES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    # Of a whole Omni checkpoint it reads the thinker alone.
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_5_omni_thinker": "Qwen2_5OmniThinkerForConditionalGeneration",
}
"""The transformers class with a place for every tensor, by family; its `model` gives the states."""

_THRESHOLDS = {"float32": 0.99999, "bfloat16": 0.999}
_MAX_LISTED = 10


class _UnmatchedError(RuntimeError):
    """Tensors of a folder and of its torch model do not match."""


@dataclass(frozen=True)
class Comparison:
    """Cosines between the vectors of one reader of an export and ours."""

    reader: str
    modality: str
    count: int
    min_cosine: float
    mean_cosine: float
    threshold: float

    @property
    def passed(self) -> bool:
        return self.min_cosine >= self.threshold


@dataclass(frozen=True)
class Verification:
    """What was compared, with which versions."""

    comparisons: tuple[Comparison, ...]
    versions: dict[str, str]
    unmatched: str | None = None
    """Tensors that only the folder or only the torch model has; then nothing was compared."""

    @property
    def failures(self) -> list[str]:
        """Why the export must not be used; empty if it may."""
        if self.unmatched:
            return [self.unmatched]
        return [
            f"{row.reader}, {row.modality}: lowest cosine {row.min_cosine:.7f} of {row.count} is "
            f"below {row.threshold}"
            for row in self.comparisons
            if not row.passed
        ]

    def describe(self) -> dict[str, Any]:
        """For the export's own record."""
        return {
            "passed": not self.failures,
            "failures": self.failures,
            "comparisons": [asdict(row) for row in self.comparisons],
            "versions": self.versions,
        }


def check_libraries(format: Format) -> None:
    """Raise ValueError with the remedy if verification of a format cannot be run here."""
    missing = [name for name in _LIBRARIES[format] if not _is_installed(name)]
    if missing:
        raise ValueError(
            f"verification needs {', '.join(missing)}: pip install 'lco_jax[export]', "
            "or pass --no-verify"
        )


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def verify(
    folder: Path,
    format: Format,
    *,
    family: str,
    recipe: Mapping[str, Any],
    probes: Probes,
    dtype: str,
    base_folder: Path,
) -> Verification:
    """Encode the probes with torch in float32 and compare.

    Args:
        recipe: what `Prompter.describe` says.
        dtype: in which our vectors were computed, which decides how near they must be.
        base_folder: of the model that a peft adapter refines.
    """
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES[format]}
    try:
        comparisons = _compare_readers(folder, format, family, recipe, probes, dtype, base_folder)
    except _UnmatchedError as error:
        return Verification((), versions, str(error))
    return Verification(tuple(comparisons), versions)


def _compare_readers(
    folder: Path,
    format: Format,
    family: str,
    recipe: Mapping[str, Any],
    probes: Probes,
    dtype: str,
    base_folder: Path,
) -> list[Comparison]:
    threshold = _THRESHOLDS[dtype]
    tokenizer = _load_tokenizer(base_folder if format == "peft" else folder)
    texts = [_cut(tokenizer, text, recipe["max_text_tokens"]) for text in probes.texts]
    turns = [
        recipe["template_head"] + text + recipe["prompt"] + recipe["template_tail"]
        for text in texts
    ]
    if format == "peft":
        reader, model = "peft", _load_adapted(folder, base_folder, family)
    else:
        reader, model = "transformers", _load(folder, family)
    vectors = _last_states(model, tokenizer, turns)
    comparisons = [_compare(reader, "text", vectors, probes.vectors, threshold)]
    if format == "sentence-transformers":
        # A 7B model in float32 takes 30 GB; only one at a time is held.
        del model
        gc.collect()
        vectors = _sentence_vectors(folder, probes.texts)
        same = [
            _is_cut_cleanly(tokenizer, text, cut, recipe["prompt"])
            for text, cut in zip(probes.texts, texts, strict=True)
        ]
        comparisons.append(_compare(format, "text", vectors[same], probes.vectors[same], threshold))
    return comparisons


def _compare(
    reader: str,
    modality: str,
    found: Float[np.ndarray, "N E"],
    expected: Float[np.ndarray, "N E"],
    threshold: float,
) -> Comparison:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.sum(found * expected, axis=1) / norms
    return Comparison(
        reader, modality, len(cosines), float(cosines.min()), float(cosines.mean()), threshold
    )


# --------------------------------------------------------------------------------------- torch


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def _cut(tokenizer: "PreTrainedTokenizerBase", text: str, limit: int) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) <= limit:
        return text
    return tokenizer.decode(ids[:limit], clean_up_tokenization_spaces=False)


def _is_cut_cleanly(tokenizer: "PreTrainedTokenizerBase", text: str, cut: str, prompt: str) -> bool:
    """Whether to cut the tokens is to cut the text.

    sentence-transformers cuts tokens; we cut the text and tokenise it once more. The last tokens
    differ if the cut goes through a character or lets the prompt join the text.
    """
    ids, cut_ids, prompt_ids = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (text, cut + prompt, prompt)
    )
    return cut == text or cut_ids == ids[: len(cut_ids) - len(prompt_ids)] + prompt_ids


def _load(folder: Path, family: str) -> "PreTrainedModel":
    import torch
    import transformers

    model, info = getattr(transformers, MODEL_CLASSES[family]).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    kinds = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")
    _check_keys({kind: info[kind] for kind in kinds})
    return model.eval()


def _load_adapted(folder: Path, base_folder: Path, family: str) -> "PreTrainedModel":
    import peft

    base = _load(base_folder, family)
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
        raise _UnmatchedError("\n".join(["tensors do not match those of the torch model:", *lines]))


def _last_states(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", rendered: Sequence[str]
) -> Float[np.ndarray, "N E"]:
    """The last token's state after the final norm, text by text and so without padding."""
    import torch

    vectors = []
    with torch.inference_mode():
        for text in rendered:
            inputs = tokenizer(text, add_special_tokens=False, return_tensors="pt")
            states = model.model(inputs["input_ids"]).last_hidden_state
            vectors.append(states[0, -1].numpy())
    return np.stack(vectors)


def _sentence_vectors(folder: Path, texts: Sequence[str]) -> Float[np.ndarray, "N E"]:
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(folder), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True
    )
    return model.encode(list(texts), batch_size=4, show_progress_bar=False)
