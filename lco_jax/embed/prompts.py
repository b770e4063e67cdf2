"""Texts that stand before those of items, by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lco_jax.data.records import Item, describe
from lco_jax.metrics.similarity import SIMILARITIES
from lco_jax.models.json_files import read_object

_SAVED_SETTINGS = "config_sentence_transformers.json"


def saved_settings(folder: Path) -> dict[str, Any]:
    """Prompts and the like of a folder of sentence-transformers; of another folder, none.

    Raises:
        ValueError: the file holds no JSON object.
    """
    file = folder / _SAVED_SETTINGS
    if not file.exists():
        return {}
    settings = read_object(file)
    if settings.get("similarity_fn_name") not in SIMILARITIES:
        settings.pop("similarity_fn_name", None)  # of models with several vectors an item
    return settings


def choose_prompt(
    prompts: Mapping[str, str], default_name: str | None, prompt: str | None, name: str | None
) -> str:
    """The prompt of a call: that which it gives, else that which it names, else the default.

    Raises:
        ValueError: no prompt of that name, or one that is no text.
    """
    if prompt is not None:
        return _text(prompt, "prompt")
    name = default_name if name is None else name
    if name is None:
        return ""
    if not isinstance(name, str) or name not in prompts:
        raise ValueError(f"no prompt {name!r}; there are {sorted(prompts)}")
    return _text(prompts[name], f"prompts[{name!r}]")


def _text(prompt: Any, field: str) -> str:
    if not isinstance(prompt, str):
        raise ValueError(f"{field} is {describe(prompt)}, expected one text for all inputs")
    return prompt


def with_prompt(item: Item, prompt: str) -> Item:
    """The item with a prompt before its text; of an item without a text the prompt is the text."""
    return replace(item, text=prompt + item.text) if prompt else item


class PromptedPiece(Sequence):
    """A piece of a job whose items, made when they are asked for, get a prompt."""

    def __init__(self, piece: Sequence[Item | ValueError], prompt: str):
        self._piece, self._prompt = piece, prompt

    def __len__(self) -> int:
        return len(self._piece)

    def __getitem__(self, index: int) -> Item | ValueError:
        item = self._piece[index]
        return with_prompt(item, self._prompt) if isinstance(item, Item) else item
