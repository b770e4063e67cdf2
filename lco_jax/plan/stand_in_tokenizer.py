"""A tokenizer that stands in for one that is not on this machine."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from lco_jax.models.config import ModelConfig

_SPECIALS = ("<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>")
_WORDS = (
    *("word", "Word", "7", "system", "You", "are", "a", "helpful", "assistant", ".", "user"),
    *("Summarize", "the", "above", "text", "image", "video", "audio", "in", "one", ":"),
)
"""Known words: the template, the prompts, and what tells probes apart; all others are `<unk>`."""
_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}{1,6}|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""Qwen's rule, with words cut every six letters: about as many tokens as its own tokenizer has."""
_CHAT_TEMPLATE = """\
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}
{%- MEDIA -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}"""


def write_tokenizer(folder: Path, sizes: ModelConfig) -> None:
    """A tokenizer that knows few words and counts the others as Qwen's does, by and large; with the
    family's tokens for media, and a chat template that writes them.
    """
    # Imported here because transformers loads torch where that is installed.
    from transformers import PreTrainedTokenizerFast

    media = {}
    if sizes.media_tokens is not None:
        fields = dataclasses.asdict(sizes.media_tokens).items()
        media = {f"<|{name}|>": number for name, number in fields if number is not None}
    known = [*_SPECIALS, *_WORDS, *(f" {word}" for word in _WORDS), "\n", "\n\n"]
    tokenizer = Tokenizer(
        models.WordLevel(
            {word: number for number, word in enumerate(dict.fromkeys(known))} | media, "<unk>"
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in (*_SPECIALS, *media)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>"
    )
    fast.chat_template = _CHAT_TEMPLATE.replace("{%- MEDIA -%}", _media_template(list(media)))
    fast.save_pretrained(folder)


def _media_template(names: Sequence[str]) -> str:
    """The lines of the chat template that write the kinds of media whose tokens are known."""
    kinds = {"image": "vision", "video": "vision", "audio": "audio"}
    turns = {
        kind: (f"<|{tower}_start|>", f"<|{kind}|>", f"<|{tower}_end|>")
        for kind, tower in kinds.items()
    }
    return "\n".join(
        f"{{%- if part['type'] == '{kind}' -%}}"
        f"{{{{- '{''.join(name for name in turn if name in names)}' -}}}}{{%- endif -%}}"
        for kind, turn in turns.items()
        if f"<|{kind}|>" in names
    )
