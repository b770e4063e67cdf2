"""The files of a checkpoint's tokenizer and of its chat template, checked before they are used."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from lco_jax.models.json_files import Schema, check, read_object, read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
PROCESSOR_TEMPLATE = "chat_template.json"
"""Multimodal checkpoints keep a template with the processor, which is what they are used with."""
_PARTS = ("vocab.json", "merges.txt")
_OTHERS = ("special_tokens_map.json", "added_tokens.json")
_MAX_BYTES = 128 << 20
"""Of the file of a tokenizer; the largest public ones take 34 MB."""
_MAX_TEMPLATE_BYTES = 1 << 20
_MAX_LISTED = 3


class Settings(Schema):
    """What of `tokenizer_config.json` is read here; the rest is for transformers."""

    tokenizer_class: str | None = None
    chat_template: str | list[dict[str, str]] | dict[str, str] | None = None


class _ProcessorTemplate(Schema):
    chat_template: str


def read_settings(folder: Path) -> dict[str, Any]:
    """The `tokenizer_config.json` of a folder that has a tokenizer; empty if there is none.

    Raises:
        ValueError: the folder has no tokenizer, or a file of it is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; expected a checkpoint with its tokenizer")
    if not (folder / TOKENIZER).exists() and not all((folder / name).exists() for name in _PARTS):
        raise ValueError(
            f"{folder} has no tokenizer: neither {TOKENIZER} nor {' with '.join(_PARTS)} is there; "
            "copy the tokenizer files of the model that the checkpoint was made of"
        )
    settings = _object_if_any(folder / SETTINGS)
    check(Settings, settings, folder / SETTINGS)
    for name in _OTHERS:
        _object_if_any(folder / name)
    return settings


def _object_if_any(file: Path) -> dict[str, Any]:
    return read_object(file) if file.exists() else {}


def what_is_wrong(folder: Path, error: BaseException) -> str:
    """Why transformers cannot load a tokenizer: the file and the position, if they can be found."""
    file = folder / TOKENIZER
    if file.exists():
        try:
            tokenizers.Tokenizer.from_str(read_text(file, _MAX_BYTES))
        except ValueError as wrong:
            return str(wrong)
        except BaseException as wrong:  # of Rust, where errors and panics have classes of their own
            _let_through(wrong)
            return f"{file} is no tokenizer: {_first_line(wrong)}; fetch it again"
    return f"{folder} has no tokenizer that transformers can load: {_first_line(error)}"


def _let_through(error: BaseException) -> None:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        raise error


def load(cls: type, folder: Path) -> "PreTrainedTokenizerBase":
    """What a class of transformers makes of a folder's tokenizer.

    Raises:
        ValueError: it cannot, whatever it raises.
    """
    try:
        return cls.from_pretrained(folder)
    except BaseException as error:  # also panics of Rust, which are no `Exception`
        _let_through(error)
        raise ValueError(what_is_wrong(folder, error)) from error


def _first_line(error: BaseException) -> str:
    said = str(error).strip() or type(error).__name__
    return said.splitlines()[0][:300]


def check_ids(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> None:
    """Refuse a tokenizer whose ids two tokens share, or the embedding table does not reach.

    Raises:
        ValueError: it is so, with the ids and the size of the table.
    """
    ids = tokenizer.get_vocab()
    tokens = {number: token for token, number in ids.items()}
    shared = [token for token, number in ids.items() if tokens[number] != token]
    if shared:
        said = ", ".join(
            f"{token!r} and {tokens[ids[token]]!r} ({ids[token]})" for token in shared[:_MAX_LISTED]
        )
        raise ValueError(f"{folder / TOKENIZER} gives one id to two tokens: {said}; fetch it again")
    size = _vocab_size(folder)
    if size is not None and tokens and (last := max(tokens)) >= size:
        beyond = sum(number >= size for number in tokens)
        raise ValueError(
            f"{folder}: {beyond} tokens have no embedding: the largest id of the tokenizer is "
            f"{last} ({tokens[last]!r}), and vocab_size in config.json is {size}; use the "
            "tokenizer that the model was trained with, or enlarge its table (resize_token_"
            "embeddings of transformers) and train it"
        )


def _vocab_size(folder: Path) -> int | None:
    """What `config.json`, which others check, says; None if it says nothing."""
    file = folder / "config.json"
    config = read_object(file) if file.exists() else {}
    for name in ("thinker_config", "text_config"):
        config = config[name] if isinstance(config.get(name), dict) else config
    size = config.get("vocab_size")
    return size if isinstance(size, int) else None


def template_file(folder: Path) -> Path:
    """Where the chat template is from: transformers, too, prefers what is first here."""
    files = (folder / name for name in (PROCESSOR_TEMPLATE, TEMPLATE))
    return next((file for file in files if file.exists()), folder / SETTINGS)


def read_template(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> str | dict[str, str]:
    """The chat template that goes with a checkpoint.

    Raises:
        ValueError: there is none, or it is too long. What is wrong with it, `rendering` finds.
    """
    file = template_file(folder)
    found = tokenizer.chat_template
    if file.name == PROCESSOR_TEMPLATE:
        found = check(_ProcessorTemplate, read_object(file), file).chat_template
    if not found:
        raise ValueError(
            f"{folder}: the tokenizer has no chat template; use an instruction-tuned checkpoint, "
            f"or put its template into {TEMPLATE}"
        )
    for template in found.values() if isinstance(found, dict) else [found]:
        if len(template) > _MAX_TEMPLATE_BYTES:
            raise ValueError(
                f"{file}: the chat template has {len(template)} characters, at most "
                f"{_MAX_TEMPLATE_BYTES} are read"
            )
    return found
