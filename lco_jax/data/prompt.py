"""From an item to tokens: the prompt recipe, the checkpoint's chat template and its tokenizer."""

import hashlib
import itertools
import json
import os
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Int32

from lco_jax.data.records import Encoded, Item

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Profile:
    text_prompt: str
    max_text_tokens: int


# Source: LCO-Emb released trainers and README (lco); mteb's LCO-Embedding wrapper (mteb).
_PROFILES = {
    "lco": _Profile("\nSummarize the above text in one word:", 650),
    "mteb": _Profile("\nSummarize the above text in one word:", 300),
}

_SENTINEL = "@lco-item@"
# First characters that a tokenizer may join to what precedes them, each in its own way.
_PROBES = (
    *("word", "Word", "7", " word", "  word", "\tword", "\nword", "\n\n word", "\r\nword"),
    *("'s", ".", "...\n", "-", "_", "(", "<", ">", "{", "<|", "é", "ß", "東京", "ไทย", "हिन्दी"),
    *("한국어", "\u1100", "عربي", "😀", "\u0301a", "\u200d", "\u200b", "\ufeff", "\u00a0", "\x00"),
)


class Prompter:
    """Turns items into the tokens of one user turn, as the checkpoint's chat template writes it.

    A rendered item is `template_head + text + prompt + template_tail`. The tokens that begin
    every item, whatever its text, are `head`; `encode` leaves them out.

    Args:
        tokenizer_folder: the hub folder of the checkpoint.
        profile: prompt recipe.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).

    Raises:
        ValueError: the folder has no fast tokenizer or chat template, or the template does not
            keep a text as it is.
    """

    head: Int32[np.ndarray, "P"]

    def __init__(
        self,
        tokenizer_folder: str | os.PathLike[str],
        profile: Literal["lco", "mteb"] = "lco",
        max_text_tokens: int | None = None,
    ):
        recipe = _PROFILES[profile]
        self.profile = profile
        self.prompt = recipe.text_prompt
        self.max_text_tokens = (
            recipe.max_text_tokens if max_text_tokens is None else max_text_tokens
        )
        tokenizer = _load_tokenizer(Path(tokenizer_folder))
        self.template_head, self.template_tail = _split_template(tokenizer)
        # The Rust tokenizer itself: loader threads may share it, and its batches use all cores.
        self._tokenizer = tokenizer.backend_tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        full = self._tokenize(map(self.render, _PROBES))
        self.head = np.array(_common_prefix(full), np.int32)
        self._rest = self._text_after_head(full)

    def render(self, text: str) -> str:
        """The whole turn that asks for the one word of `text`."""
        return f"{self.template_head}{text}{self.prompt}{self.template_tail}"

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """The tokens that follow `head`, and the content hash, of each item.

        Raises:
            ValueError: an item is empty or has media.
        """
        for item in items:
            _check(item)
        texts = self._cut([item.text for item in items])
        if self._rest is None:
            tokens = [self._strip_head(ids) for ids in self._tokenize(map(self.render, texts))]
        else:
            end = self.prompt + self.template_tail
            tokens = self._tokenize(self._rest + text + end for text in texts)
        return [
            Encoded(np.array(ids, np.int32), _hash(text))
            for ids, text in zip(tokens, texts, strict=True)
        ]

    def describe(self) -> dict:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {
            "profile": self.profile,
            "prompt": self.prompt,
            "max_text_tokens": self.max_text_tokens,
            "template_head": self.template_head,
            "template_tail": self.template_tail,
            "head": self.head.tolist(),
        }

    def _tokenize(self, texts: Iterable[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def _cut(self, texts: list[str]) -> list[str]:
        """Each text, or what its first `max_text_tokens` tokens decode to.

        Source: LCO-Emb released trainers (the text alone is tokenised, cut and decoded).
        """
        texts = list(texts)
        limit = self.max_text_tokens
        long = [index for index, text in enumerate(texts) if _most_tokens(text) > limit]
        for index, ids in zip(long, self._tokenize(texts[i] for i in long), strict=True):
            if len(ids) > limit:
                texts[index] = self._tokenizer.decode(ids[:limit], skip_special_tokens=False)
        return texts

    def _text_after_head(self, full: list[list[int]]) -> str | None:
        """The template's characters between the head and the text.

        None if the tokenizer gives other tokens when a text starts there: then whole turns must
        be tokenised.
        """
        head_text = self._tokenizer.decode(self.head.tolist(), skip_special_tokens=False)
        if not self.template_head.startswith(head_text):
            return None
        rest = self.template_head[len(head_text) :]
        end = self.prompt + self.template_tail
        alone = self._tokenize(rest + probe + end for probe in _PROBES)
        return rest if alone == [ids[len(self.head) :] for ids in full] else None

    def _strip_head(self, ids: list[int]) -> list[int]:
        if ids[: len(self.head)] != self.head.tolist():
            raise ValueError(
                f"the tokens {ids} do not begin with the head {self.head.tolist()} of other items; "
                "this tokenizer joins the text to the template and is not supported"
            )
        return ids[len(self.head) :]


def _load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    # Imported here because transformers loads torch where that is installed.
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a checkpoint with its tokenizer")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}: has no tokenizer that transformers can load") from error
    if not tokenizer.is_fast:
        raise ValueError(f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json)")
    # Multimodal checkpoints keep a template with the processor, which is what they are used with.
    processor_template = folder / "chat_template.json"
    if processor_template.exists():
        tokenizer.chat_template = json.loads(processor_template.read_text())["chat_template"]
    if tokenizer.chat_template is None:
        raise ValueError(
            f"{folder}: the tokenizer has no chat template; use an instruction-tuned checkpoint, "
            "or put its template into chat_template.jinja"
        )
    return tokenizer


def _split_template(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """What the chat template writes before and after the content of the only user turn."""
    as_parts = False
    before, found, after = _render(tokenizer, _SENTINEL, as_parts).partition(_SENTINEL)
    if not found:  # some templates of multimodal models know only lists of parts
        as_parts = True
        before, found, after = _render(tokenizer, _SENTINEL, as_parts).partition(_SENTINEL)
    for probe in (_SENTINEL, *_PROBES):
        if _render(tokenizer, probe, as_parts) != before + probe + after:
            raise ValueError(
                f"{tokenizer.name_or_path}: the chat template does not keep the text {probe!r} as "
                "it is; use a template that writes the content of a message unchanged"
            )
    return before, after


def _render(tokenizer: "PreTrainedTokenizerBase", text: str, as_parts: bool) -> str:
    content = [{"type": "text", "text": text}] if as_parts else text
    turn = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    columns = zip(*sequences, strict=False)
    return [column[0] for column in itertools.takewhile(lambda ids: len(set(ids)) == 1, columns)]


def _check(item: Item) -> None:
    if item.has_media:
        raise ValueError(
            f"item {item.id or item}: media towers are not built yet; use items with text only"
        )
    if item.is_empty:
        raise ValueError(f"item {item.id or item} is empty; give it a text")


def _most_tokens(text: str) -> int:
    """A bound: byte-level BPE has no more tokens than bytes, before or after normalisation."""
    if text.isascii():
        return len(text)
    return max(len(text.encode()), len(unicodedata.normalize("NFC", text).encode()))


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
