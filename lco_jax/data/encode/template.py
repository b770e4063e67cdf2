"""A checkpoint's tokenizer, and what its chat template writes around contents."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lco_jax.data.encode.encoded import Kind
from lco_jax.data.encode.rendering import ChatTemplate, Conversation
from lco_jax.data.encode.tokenizer_files import (
    check_ids,
    load,
    read_settings,
    read_template,
    template_file,
)
from lco_jax.models.families import FAMILIES
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


def load_tokenizer(folder: Path, *, with_template: bool = True) -> "PreTrainedTokenizerBase":
    """The tokenizer of a checkpoint, with the chat template that goes with it.

    Args:
        with_template: whether it must have one.

    Raises:
        ValueError: the folder has no fast tokenizer or no chat template, or one that is damaged.
    """
    tokenizer = load(_tokenizer_class(folder), folder)
    if not tokenizer.is_fast:
        raise ValueError(f"{folder}: {type(tokenizer).__name__} has no fast form (tokenizer.json)")
    check_ids(tokenizer, folder)
    if with_template:
        tokenizer.chat_template = read_template(tokenizer, folder)
    return tokenizer


def _tokenizer_class(folder: Path) -> type:
    """What reads the folder's tokenizer.

    `AutoTokenizer` would take the same class with a model of the families here, but to choose it
    loads torch where that is installed, which takes as long as all other imports.

    Source: transformers AutoTokenizer, which distrusts what folders of some families name.
    """
    import transformers

    settings = read_settings(folder)
    config = folder / "config.json"
    family = FAMILIES.get(read_object(config).get("model_type")) if config.exists() else None
    name = settings.get("tokenizer_class")
    if family and "auto_map" not in settings and name in (*_OF_QWEN, *_AS_IN_FILE):
        is_qwens = name in _OF_QWEN if family.tokenizer == "named" else family.tokenizer == "qwen"
        return transformers.Qwen2Tokenizer if is_qwens else transformers.PreTrainedTokenizerFast
    return transformers.AutoTokenizer


def open_template(
    tokenizer: "PreTrainedTokenizerBase", folder: Path, kinds: Sequence[Kind]
) -> ChatTemplate:
    """The chat template of a checkpoint, with all that is asked of it below.

    Raises:
        ValueError: it is no Jinja, or goes beyond a limit of `rendering`.
    """
    texts = (_SENTINEL, *PROBES)
    conversations = [_turn(text, as_parts) for as_parts in (False, True) for text in texts]
    conversations += [_turn_with(kind) for kind in kinds] + _answers() + _questions()
    return ChatTemplate(
        tokenizer.get_chat_template(),
        str(template_file(folder)),
        {**tokenizer.special_tokens_map, "tools": None, "documents": None},
        conversations,
    )


def begin_of_turns(tokenizer: "PreTrainedTokenizerBase", folder: Path) -> str:
    """What is put before a turn that does not begin with it: of families whose processor treats
    turns as texts, what the tokenizer puts before a text.

    Source: transformers ProcessorMixin.apply_chat_template.
    """
    config = folder / "config.json"
    family = FAMILIES.get(read_object(config).get("model_type")) if config.exists() else None
    return _around(tokenizer)[0] if family and family.torch_media else ""


def _turn(text: str, as_parts: bool) -> Conversation:
    return _of_user([{"type": "text", "text": text}] if as_parts else text)


def _turn_with(kind: Kind) -> Conversation:
    return _of_user([{"type": kind}, {"type": "text", "text": _SENTINEL}])


def _of_user(content: str | list[dict]) -> Conversation:
    return {"messages": [{"role": "user", "content": content}], "add_generation_prompt": True}


def _answers() -> list[Conversation]:
    """A question with its answer, in the forms that templates know."""
    turns = (("user", "?"), ("assistant", _SENTINEL))
    plain = [{"role": role, "content": text} for role, text in turns]
    parts = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
    return [{"messages": form, "add_generation_prompt": False} for form in (plain, parts)]


def _questions() -> list[Conversation]:
    """The same without the answer, which is asked for."""
    return [
        {"messages": form["messages"][:1], "add_generation_prompt": True} for form in _answers()
    ]


def split_template(template: ChatTemplate) -> tuple[str, str]:
    """What the chat template writes before and after the content of the only user turn.

    Raises:
        ValueError: it fails, or does not keep texts as they are.
    """
    as_parts = False
    before, found, after = _try_render(template, _turn(_SENTINEL, as_parts)).partition(_SENTINEL)
    if not found:  # some templates of multimodal models know only lists of parts
        as_parts = True
        before, found, after = template.render(_turn(_SENTINEL, as_parts)).partition(_SENTINEL)
    for probe in (_SENTINEL, *PROBES):
        if template.render(_turn(probe, as_parts)) != before + probe + after:
            raise ValueError(
                f"{template.place}: the chat template does not keep the text {probe!r} as it is; "
                "use a template that writes the content of a message unchanged"
            )
    return before, after


def after_answer(template: ChatTemplate, tokenizer: "PreTrainedTokenizerBase") -> str:
    """What the chat template writes after the content of the assistant's turn.

    Raises:
        ValueError: neither the template nor the tokenizer ends an answer.
    """
    for form in _answers():
        _, found, after = _try_render(template, form).partition(_SENTINEL)
        if found and after.strip():
            return after.lstrip()
    if tokenizer.eos_token is None:
        raise ValueError(
            f"{template.place}: neither the chat template nor the tokenizer ends an answer; give "
            "the tokenizer an eos_token"
        )
    return tokenizer.eos_token


def before_answer(template: ChatTemplate) -> str:
    """The white space that the chat template writes before the content of the assistant's turn,
    behind what asks for it. Anything else, such as empty thoughts, is no part of answers.
    """
    for form, question in zip(_answers(), _questions(), strict=True):
        before, found, _ = _try_render(template, form).partition(_SENTINEL)
        asked = _try_render(template, question)
        if found and asked and before.startswith(asked):
            lead = before[len(asked) :]
            return lead if lead.isspace() else ""
    return ""


def around_text(
    tokenizer: "PreTrainedTokenizerBase", folder: Path, *, needs_end: bool
) -> tuple[str, str]:
    """The tokens that a tokenizer puts before and after a text; where it puts none after it and one
    is needed, the one that ends texts.

    Raises:
        ValueError: it has no such token.
    """
    before, after = _around(tokenizer)
    if after or not needs_end:
        return before, after
    if tokenizer.eos_token is None:
        raise ValueError(
            f"{folder}: the tokenizer neither puts a token behind texts nor has an eos_token; give "
            "it one (in tokenizer_config.json)"
        )
    return before, tokenizer.eos_token


def _around(tokenizer: "PreTrainedTokenizerBase") -> tuple[str, str]:
    """The tokens that a tokenizer puts before and after a text."""
    found = tokenizer.backend_tokenizer.encode(_SENTINEL)
    text = [place for place, added in enumerate(found.special_tokens_mask) if not added]
    return "".join(found.tokens[: text[0]]), "".join(found.tokens[text[-1] + 1 :])


def read_markup(
    template: ChatTemplate, head: str, kinds: Sequence[Kind]
) -> tuple[dict[Kind, str], str]:
    """What the chat template writes for a medium before a text, for the kinds that it knows; and
    how much of `head`, which it writes before a text alone, stands between media and text.
    """
    written: dict[Kind, tuple[str, int]] = {}
    for kind in kinds:
        before, found, _ = _try_render(template, _turn_with(kind)).partition(_SENTINEL)
        place = _place_of_media(before, head) if found else None
        if place is not None:
            written[kind] = before, place
    place = min((place for _, place in written.values()), default=len(head))
    behind = len(head) - place
    markup = {
        kind: before[place : len(before) - behind]
        for kind, (before, own) in written.items()
        if own == place
    }
    return markup, head[place:]


def _place_of_media(before: str, head: str) -> int | None:
    """Where within what precedes a text the media stand, as far behind as may be: only white space
    may follow (None: nowhere)."""
    for place in range(len(head), -1, -1):
        begin, end = head[:place], head[place:]
        if end.strip():
            break
        if len(before) > len(head) and before.startswith(begin) and before.endswith(end):
            return place
    return None


def _try_render(template: ChatTemplate, conversation: Conversation) -> str:
    """Empty where the template raises an error, as those of text models do on parts."""
    try:
        return template.render(conversation)
    except ValueError:
        return ""
