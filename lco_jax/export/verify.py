"""Whether torch, given nothing but an exported folder, computes our vectors.

torch and its libraries are imported where they are used: only verification needs them.
"""

import gc
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from lco_jax.export import sentence_reader, torch_models
from lco_jax.export.probes import Probe, Probes
from lco_jax.export.torch_inputs import TorchReader
from lco_jax.models.families import Family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Format = Literal["merged", "peft", "sentence-transformers"]

_LIBRARIES: Mapping[Format, tuple[str, ...]] = {
    "merged": ("torch", "transformers"),
    "peft": ("torch", "transformers", "peft"),
    "sentence-transformers": ("torch", "transformers", "sentence-transformers"),
}
_THRESHOLDS = {"float32": 0.99999, "bfloat16": 0.999}


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
        # A vector of NaN is no pass.
        return bool(self.min_cosine >= self.threshold)


@dataclass(frozen=True)
class Verification:
    """What was compared, with which versions."""

    comparisons: tuple[Comparison, ...]
    versions: dict[str, str]
    unmatched: str | None = None
    """Tensors that only the folder or only the torch model has; then nothing was compared."""
    not_compared: str | None = None
    """What one of the readers could not be given here, and why."""

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
            "not_compared": self.not_compared,
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
    recipe: Mapping[str, Any],
    *,
    family: Family,
    probes: Probes,
    base_folder: Path,
) -> Verification:
    """Encode the probes with torch in float32 and compare, modality by modality.

    Args:
        recipe: the record of the export; its dtype, in which our vectors were computed, decides
            how near they must be.
        base_folder: of the model that a peft adapter refines.
    """
    from transformers import AutoTokenizer

    format = recipe["format"]
    versions = {name: importlib.metadata.version(name) for name in _LIBRARIES[format]}
    threshold = _THRESHOLDS[recipe["dtype"]]
    of_tokenizer = base_folder if format == "peft" else folder
    tokenizer = AutoTokenizer.from_pretrained(of_tokenizer)
    limit = recipe["max_text_tokens"]
    texts = [_cut(tokenizer, probe.item.text, limit) for probe in probes.probes]
    try:
        if format == "peft":
            name, model = "peft", torch_models.load_adapted(folder, base_folder, family)
        else:
            name, model = "transformers", torch_models.load(folder, family)
    except torch_models.UnmatchedError as error:
        return Verification((), versions, unmatched=str(error))
    reader = TorchReader(model, family, tokenizer, of_tokenizer, recipe, probes.head)
    vectors = _last_states(reader, probes, texts)
    comparisons = [*_compare(name, probes, range(len(texts)), vectors, threshold)]
    reason = None
    if format == "sentence-transformers":
        # A 7B model in float32 takes 30 GB; only one at a time is held.
        del model, reader
        gc.collect()
        cut_alike = [
            _is_cut_cleanly(tokenizer, probe, text)
            for probe, text in zip(probes.probes, texts, strict=True)
        ]
        found, reason = sentence_reader.encode(folder, family, recipe, probes)
        chosen = [index for index in found if cut_alike[index]]
        vectors = np.stack([found[index] for index in chosen])
        comparisons += _compare(format, probes, chosen, vectors, threshold)
    return Verification(tuple(comparisons), versions, not_compared=reason)


def _compare(
    reader: str,
    probes: Probes,
    chosen: Sequence[int],
    found: Float[np.ndarray, "N E"],
    threshold: float,
) -> Iterator[Comparison]:
    """The vectors `found` of the chosen probes against ours, by modality."""
    expected = probes.vectors[list(chosen)]
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    cosines = np.sum(found * expected, axis=1) / norms
    of_each = [probes.probes[index].modality for index in chosen]
    for modality in dict.fromkeys(of_each):
        mine = cosines[[each == modality for each in of_each]]
        yield Comparison(
            reader, modality, len(mine), float(mine.min()), float(mine.mean()), threshold
        )


def _cut(tokenizer: "PreTrainedTokenizerBase", text: str, limit: int) -> str:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) <= limit:
        return text
    return tokenizer.decode(ids[:limit], clean_up_tokenization_spaces=False)


def _is_cut_cleanly(tokenizer: "PreTrainedTokenizerBase", probe: Probe, cut: str) -> bool:
    """Whether to cut the tokens is to cut the text.

    sentence-transformers cuts tokens; we cut the text and tokenise it once more. The last tokens
    differ if the cut goes through a character or lets the prompt join the text.
    """
    ids, cut_ids, after_ids = (
        tokenizer(part, add_special_tokens=False)["input_ids"]
        for part in (probe.item.text, cut + probe.after, probe.after)
    )
    kept = len(cut_ids) - len(after_ids)
    return cut == probe.item.text or cut_ids == ids[:kept] + after_ids


def _last_states(
    reader: TorchReader, probes: Probes, texts: Sequence[str]
) -> Float[np.ndarray, "N E"]:
    """The last token's state after the final norm, item by item and so without padding."""
    return np.stack(
        [reader.last_state(probe, text) for probe, text in zip(probes.probes, texts, strict=True)]
    )
