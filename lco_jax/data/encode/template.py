"""A checkpoint's tokenizer, and what its chat template writes around contents."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lco_jax.data.encode.encoded import Kind
from lco_jax.data.encode.tokenizer_files import check_ids, load, read_settings, read_template
from lco_jax.models.families import FAMILIES, QWEN2
from lco_jax.models.json_files import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SENTINEL = "@lco-item@"
# First characters that a tokenizer may join to what precedes them, each in its own way.
PROBES = (
    *("word", "Word", "7", " word", "  word", "\tword", "\nword", "\n\n word", "\r\nword"),
    *("'s", ".", "...\n", "-", "_", "(", "<", ">", "{", "<|", "é", "ß", "東京", "ไทย", "हिन्दी"),
    *("한국어", "\u1100", "عربي", "😀", "\u0301a", "\u200d", "\u200b", "\ufeff", "\u00a0", "\x00"),
)

_OF_QWEN = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_AS_IN_FILE = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""Names of classes: of Qwen's own tokenizer, and of what reads tokenizer.json as it is."""


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint, with the chat template that goes with it.

    Raises:
        ValueError: the folder has no fast tokenizer or no chat template, or one that is damaged.
    """
    tokenizer = load(_tokenizer_class(folder), folder)
    if not tokenizer.is_fast:
        raise ValueError(f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json)")
    check_ids(tokenizer, folder)
    tokenizer.chat_template = read_template(tokenizer, folder)
    return tokenizer


def _tokenizer_class(folder: Path) -> type:
    """What reads the folder's tokenizer.

    `AutoTokenizer` would take the same class with a model of the families here, but to choose it
    loads torch where that is installed, which takes as long as all other imports.

    Source: transformers AutoTokenizer, which distrusts other classes in folders of `qwen2`.
    """
    import transformers

    settings = read_settings(folder)
    config = folder / "config.json"
    family = read_object(config).get("model_type") if config.exists() else None
    name = settings.get("tokenizer_class")
    if family in FAMILIES and "auto_map" not in settings:
        if name in _OF_QWEN or (name in _AS_IN_FILE and family == QWEN2.name):
            return transformers.Qwen2Tokenizer
        if name in _AS_IN_FILE:
            return transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer


def split_template(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """What the chat template writes before and after the content of the only user turn."""
    as_parts = False
    before, found, after = _render(tokenizer, _SENTINEL, as_parts).partition(_SENTINEL)
    if not found:  # some templates of multimodal models know only lists of parts
        as_parts = True
        before, found, after = _render(tokenizer, _SENTINEL, as_parts).partition(_SENTINEL)
    for probe in (_SENTINEL, *PROBES):
        if _render(tokenizer, probe, as_parts) != before + probe + after:
            raise ValueError(
                f"{tokenizer.name_or_path}: the chat template does not keep the text {probe!r} as "
                "it is; use a template that writes the content of a message unchanged"
            )
    return before, after


def _render(tokenizer: "PreTrainedTokenizerBase", text: str, as_parts: bool) -> str:
    return _render_content(tokenizer, [{"type": "text", "text": text}] if as_parts else text)


def _render_content(tokenizer: "PreTrainedTokenizerBase", content: str | list[dict]) -> str:
    turn = [{"role": "user", "content": content}]
    return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def after_answer(tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the chat template writes after the content of the assistant's turn."""
    turns = [
        {"role": role, "content": [{"type": "text", "text": text}]}
        for role, text in (("user", "?"), ("assistant", _SENTINEL))
    ]
    plain = [{**turn, "content": turn["content"][0]["text"]} for turn in turns]
    for form in (plain, turns):
        try:
            rendered = tokenizer.apply_chat_template(form, tokenize=False)
        except Exception:  # templates raise all kinds of errors on forms that they do not know
            continue
        _, found, after = rendered.partition(_SENTINEL)
        if found and after.strip():
            return after.lstrip()
    if tokenizer.eos_token is None:
        raise ValueError(
            f"{tokenizer.name_or_path}: neither the chat template nor the tokenizer ends an "
            "answer; give the tokenizer an eos_token"
        )
    return tokenizer.eos_token


def read_markup(
    tokenizer: "PreTrainedTokenizerBase", head: str, kinds: Sequence[Kind]
) -> dict[Kind, str]:
    """What the chat template writes for a medium before a text, for the kinds that it knows."""
    markup: dict[Kind, str] = {}
    for kind in kinds:
        content = [{"type": kind}, {"type": "text", "text": _SENTINEL}]
        try:
            before, found, _ = _render_content(tokenizer, content).partition(_SENTINEL)
        except Exception:  # templates of text models raise all kinds of errors on parts
            return {}
        if found and before.startswith(head) and before != head:
            markup[kind] = before[len(head) :]
    return markup
