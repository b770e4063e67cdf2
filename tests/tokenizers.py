"""A tiny ChatML tokenizer of Qwen's kind, for models with a vocabulary of a few hundred tokens."""

import json
from pathlib import Path

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

VOCAB_SIZE = 400
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_ROLES = (
    *("vision_start", "vision_end", "image", "video"),
    *("audio", "audio_start", "audio_end"),
)
MEDIA_IDS = {role: VOCAB_SIZE + index for index, role in enumerate(_ROLES)}
"""Of the tokens that stand for media, behind the vocabulary."""
_MEDIA_STRINGS = {
    "qwen2_5_vl": (
        *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
    ),
    "qwen3_vl": (
        *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        *("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>"),
    ),
    "qwen2_5_omni_thinker": (
        *("<|vision_bos|>", "<|vision_eos|>", "<|IMAGE|>", "<|VIDEO|>"),
        *("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"),
    ),
}
LLAMA3_STRINGS = (
    *("<image>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
"""Behind the vocabulary in LLaVA-NeXT's tokenizer."""
LLAMA3_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' -}}
{%- for part in message['content'] | selectattr('type', 'equalto', 'image') -%}
{{- '<image>' -}}
{%- endfor -%}
{%- for part in message['content'] | selectattr('type', 'equalto', 'text') -%}
{{- '\\n' + part['text'] + '<|eot_id|>' -}}
{%- endfor -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{%- endif -%}"""
"""As on the hub, it takes lists of parts alone, puts a line break before a text, and does not write
what begins texts: the tokenizer does."""

OMNI_TOKENS = {
    **{f"{kind}_token": f"<|{kind.upper()}|>" for kind in ("image", "video", "audio")},
    **{
        f"{tower}_{end}_token": f"<|{tower}_{end}|>"
        for tower in ("vision", "audio")
        for end in ("bos", "eos")
    },
}
"""As the public Omni checkpoints call them."""

# Both from the hub's Qwen2.5 tokenizer files (the default system text is shortened).
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = """\
{%- if messages[0]['role'] != 'system' -%}
<|im_start|>system
You are a helpful assistant.<|im_end|>
{% endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'text' -%}{{- part['text'] -}}
MEDIA
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>' + '\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\n' -}}
{%- endif -%}"""

_CORPUS = (
    "system\nYou are a helpful assistant.\nuser\nassistant\n",
    "a word\nSummarize the above text in one word:\n\n\n\nSummarize the above in one word:\n\n",
    "a person on a horse jumps over a broken down airplane; the person is outdoors, on a horse",
    "the quick brown fox jumps over the lazy dog while the other animals are watching it",
    "two women are embracing while holding packages to go after a busy morning at the market",
)


def _media_template(strings: tuple[str, ...]) -> str:
    """The lines of the chat template that write media."""
    text = dict(zip(_ROLES, strings, strict=True))
    kinds = {"image": "vision", "video": "vision", "audio": "audio"}
    return "\n".join(
        f"{{%- elif part['type'] == '{kind}' -%}}"
        f"{{{{- '{text[f'{tower}_start']}{text[kind]}{text[f'{tower}_end']}' -}}}}"
        for kind, tower in kinds.items()
    )


def write_tokenizer(folder: str | Path, family: str = "qwen2") -> None:
    """Write a byte-level BPE tokenizer of `VOCAB_SIZE` tokens, specials last, into `folder`.

    Those of multimodal families have the tokens of `MEDIA_IDS`, and templates that write them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens(list(SPECIALS))
    is_llava = family == "llava_next"
    media = LLAMA3_STRINGS if is_llava else _MEDIA_STRINGS.get(family, ())
    tokenizer.add_special_tokens(list(media))
    if is_llava:
        begin = LLAMA3_STRINGS[1]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, tokenizer.token_to_id(begin))]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|eot_id|>" if is_llava else "<|im_end|>",
        bos_token="<|begin_of_text|>" if is_llava else None,
        pad_token="<|endoftext|>",
        padding_side="left",
    )
    of_media = _media_template(media) if media and not is_llava else ""
    fast.chat_template = LLAMA3_TEMPLATE if is_llava else CHAT_TEMPLATE.replace("MEDIA\n", of_media)
    fast.save_pretrained(folder)


def name_media_tokens(folder: Path) -> None:
    """Name the tokens of media in the tokenizer of an Omni folder: `Qwen2_5OmniProcessor` asks for
    them."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text()) | {"extra_special_tokens": OMNI_TOKENS}
    file.write_text(json.dumps(settings))
