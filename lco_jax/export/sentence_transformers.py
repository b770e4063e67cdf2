"""The files by which sentence-transformers reads an export as we do.

Without them it takes the mean over all tokens of the bare text. They name the pooling, and hold
our prompt recipe as a chat template through which every item goes.

A model that reads texts alone has a tokenizer and no processor, and cuts texts by its tokens. One
that reads media has three views. The folder itself takes texts and images anywhere. The processor
of the family, which takes videos and audio as well, needs torchvision even for a text, and lies in
a folder of its own (`MEDIA_VIEW`). Neither cuts texts, since it would cut media as well; the
tokenizer alone (`TEXT_VIEW`) does, as in a model of texts.

Source: sentence-transformers 6 Transformer, Pooling and Normalize.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lco_jax.data.encode.processor import Processor
from lco_jax.data.encode.profiles import Asked
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.records import Item
from lco_jax.export.processors import (
    IMAGE_FILE,
    JOINT_FILE,
    VIDEO_FILE,
    read_settings,
    video_size,
    write_settings,
)
from lco_jax.models.tokens import Kind

TEXT_VIEW = "text"
"""Folder of the tokenizer alone; `processor_kwargs={"subfolder": "text"}` loads it."""
MEDIA_VIEW = "media"
"""Folder of the processor of all media, where there are others than images."""
_IMAGE_PROCESSOR = "PaddleOCRVLProcessor"
"""Of transformers: any image processor with any tokenizer, and nothing that needs torchvision. It
gives each image as many tokens as Qwen's processors do."""

_MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
_TOKENIZER_FILE = "tokenizer_config.json"
_TOKENIZER_FILES = (
    _TOKENIZER_FILE,
    *("tokenizer.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
_ONE_TOKEN = "0"
_MARK = "@lco-text@"


def write_modules(folder: Path, processor: Processor, width: int) -> None:
    """Turn a hub folder into one of sentence-transformers, with its modules and their settings."""
    prompter = processor.prompter
    kinds = processor.family.readable_kinds(processor.kinds, processor.media.after_video)
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    message = {**output, "format": "structured" if processor.kinds else "flat"}
    transformer: dict[str, Any] = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": output, **dict.fromkeys(kinds, output), "message": message},
        "module_output_name": "token_embeddings",
        # Texts laid end to end would need positions that the multimodal decoders do not take.
        "unpad_inputs": False,
    }
    processing: dict[str, Any] = {}
    if processor.kinds:
        _write_text_view(folder, prompter)
        if "image" in kinds:
            if set(kinds) != {"image"}:
                _write_media_view(folder)
            image_token = prompter.token(processor.config.placeholders["image"])
            _name_image_token(folder, image_token)
            if processor.family.torch_media.video_processor:
                write_settings(folder / JOINT_FILE, {"processor_class": _IMAGE_PROCESSOR})
        # As we do, Pillow scales images; torchvision gives some pixels another grey level.
        transformer["processor_kwargs"] = {"use_fast": False}
        if processor.family.torch_media.video_processor:
            processing["video"] = {"size": video_size(processor), "do_sample_frames": False}
        if processor.family.video_rate == "asked":
            processing["video"]["fps"] = processor.media.video_fps
        template = chat_template_of_media(prompter, kinds)
    else:
        for name in (IMAGE_FILE, JOINT_FILE, VIDEO_FILE):
            (folder / name).unlink(missing_ok=True)
        # Else the family's processor is looked for.
        update_tokenizer(folder, processor_class="AutoTokenizer")
        transformer["max_seq_length"] = max_tokens(prompter)
        template = chat_template(prompter)
    transformer["processing_kwargs"] = {**processing, "chat_template": {"chat_template": template}}
    pooling = {"embedding_dimension": width, "pooling_mode": "lasttoken", "include_prompt": True}
    model = {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "", "document": "", **prompter.prompts},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(_MODULES.items())
    ]
    write_settings(folder / "modules.json", modules)
    write_settings(folder / "sentence_bert_config.json", transformer)
    write_settings(folder / "1_Pooling" / "config.json", pooling)
    write_settings(folder / "2_Normalize" / "config.json", {})
    write_settings(folder / "config_sentence_transformers.json", model)


def chat_template(prompter: Prompter) -> str:
    """A template that renders one message with a text as `prompter` does; where there are prompts,
    sentence-transformers gives them as a message before it."""
    before = _literal(prompter.template_head)
    after = _literal(prompter.prompt + prompter.template_tail)
    few = "messages | length == 1"
    if prompter.prompts:
        few = f"({few} or (messages | length == 2 and messages[0]['role'] == 'system'))"
    return (
        f"{{%- if not {few} or messages | rejectattr('content', 'string') | list -%}}"
        "{{- raise_exception('this model embeds one text at a time, without a prompt') -}}"
        "{%- endif -%}"
        f"{{{{- {before} + messages | map(attribute='content') | join + {after} -}}}}"
    )


def asked_of(prompter: Prompter, kinds: Iterable[Kind]) -> dict[str, Asked]:
    """What is written around every mixture of a text and media of the given kinds, by its name,
    such as `image+text`."""
    found = {"text": prompter.asked(Item(_MARK))}
    for item in _mixtures(tuple(kinds)):
        names = [kind for kind, _ in prompter.ordered_media(item)]
        found["+".join([*names, *(["text"] if item.text else [])])] = prompter.asked(item)
    return found


def prompts_of(prompter: Prompter, kinds: Iterable[Kind]) -> dict[str, str]:
    """The prompt of every mixture of a text and media of the given kinds; where it stands on more
    than one side of them, with dots in their place."""
    found = {}
    for name, asked in asked_of(prompter, kinds).items():
        before = [part for part in (asked.before, asked.between) if part.strip()]
        found[name] = "…".join([*before, asked.after])
    return found


def chat_template_of_media(prompter: Prompter, kinds: Iterable[Kind]) -> str:
    """A template that renders one message with at most one text, and media of the given kinds in
    any order, as `prompter` does.
    """
    kinds = tuple(kinds)
    asked = {"": prompter.asked(Item(_MARK)), **asked_of(prompter, kinds)}
    around = {name: [one.before, one.between, one.after] for name, one in asked.items()}
    every = Item(**{f"{kind}s": (kind,) for kind in kinds})
    markup = [[kind, prompter.markup[kind]] for kind, _ in prompter.ordered_media(every)]
    return "".join(
        [
            "{%- set content = messages[0]['content'] -%}",
            "{%- set parts = [{'type': 'text', 'text': content}] if content is string "
            "else content -%}",
            "{%- set texts = parts | selectattr('type', 'equalto', 'text') | list -%}",
            "{%- if messages | length != 1 or texts | length > 1 -%}",
            "{{- raise_exception('this model embeds one text at a time, without a prompt') -}}",
            "{%- endif -%}",
            f"{{%- if parts | rejectattr('type', 'in', {_literal(['text', *kinds])}) | list -%}}",
            f"{{{{- raise_exception({_literal(_refusal(prompter, kinds))}) -}}}}",
            "{%- endif -%}",
            # Only the tokenizers of the views have these tokens.
            "{%- if mask_token is defined and parts | length > texts | length -%}",
            f"{{{{- raise_exception({_literal(_REFUSAL_OF_VIEW)}) -}}}}",
            "{%- endif -%}",
            "{%- if cls_token is not defined and "
            "parts | rejectattr('type', 'in', ['text', 'image']) | list -%}",
            f"{{{{- raise_exception({_literal(_REFUSAL_OF_ROOT)}) -}}}}",
            "{%- endif -%}",
            "{%- set turn = namespace(media='', names=[]) -%}",
            f"{{%- for kind, markup in {_literal(markup)} -%}}",
            "{%- set number = parts | selectattr('type', 'equalto', kind) | list | length -%}",
            "{%- if number -%}",
            "{%- set turn.media = turn.media + markup * number -%}",
            "{%- set turn.names = turn.names + [kind] -%}",
            "{%- endif -%}",
            "{%- endfor -%}",
            "{%- set text = texts | map(attribute='text') | join -%}",
            f"{{%- set text = text or ('' if turn.names else {_literal(prompter.nothing)}) -%}}",
            "{%- set names = (turn.names + (['text'] if text else [])) | join('+') -%}",
            f"{{%- set around = {_literal(around)}[names] -%}}",
            f"{{{{- {_literal(prompter.template_head)} + around[0] + turn.media + around[1] + text "
            f"+ around[2] + {_literal(prompter.template_tail)} -}}}}",
        ]
    )


_REFUSAL_OF_VIEW = (
    f"the text view reads no media; load the model without processor_kwargs "
    f"(subfolder {TEXT_VIEW!r})"
)
_REFUSAL_OF_ROOT = (
    "without further options this model reads texts and images; for videos and audio install "
    f'torchvision and load it with processor_kwargs={{"subfolder": "{MEDIA_VIEW}"}}'
)


def _refusal(prompter: Prompter, kinds: tuple[Kind, ...]) -> str:
    message = f"here this model reads {', '.join(['text', *kinds])} only"
    if set(kinds) < set(prompter.markup):
        message += (
            "; videos are embedded by lco_jax, because transformers reads them at other sizes, or "
            "gives the text behind them other positions than the model was trained with"
        )
    return message


def _mixtures(kinds: tuple[Kind, ...]) -> Iterable[Item]:
    """An item of every choice of kinds, with and without a text."""
    for bits in range(1, 2 ** len(kinds)):
        chosen = [kind for index, kind in enumerate(kinds) if bits >> index & 1]
        for text in ("", _MARK):
            yield Item(text, **{f"{kind}s": (kind,) for kind in chosen})


def _literal(value: Any) -> str:
    """JSON strings, lists and objects are Jinja literals."""
    return json.dumps(value, ensure_ascii=False)


def _write_text_view(folder: Path, prompter: Prompter) -> None:
    view = _copy(folder, TEXT_VIEW, _TOKENIZER_FILES)
    update_tokenizer(
        view,
        processor_class="AutoTokenizer",
        model_max_length=max_tokens(prompter),
        mask_token=_some_token(view),
    )


def _write_media_view(folder: Path) -> None:
    view = _copy(folder, MEDIA_VIEW, (*_TOKENIZER_FILES, IMAGE_FILE, VIDEO_FILE))
    update_tokenizer(view, cls_token=_some_token(view))


def _copy(folder: Path, view: str, names: Iterable[str]) -> Path:
    (folder / view).mkdir()
    for name in names:
        if (folder / name).exists():
            shutil.copyfile(folder / name, folder / view / name)
    return folder / view


def _some_token(view: Path) -> str | None:
    """Any token, under a name by which the chat template knows the view."""
    held = read_settings(view / _TOKENIZER_FILE)
    return held.get("pad_token") or held.get("eos_token")


def _name_image_token(folder: Path, token: str) -> None:
    """Say which token stands for an image, if the tokenizer does not."""
    field = "model_specific_special_tokens"
    held = read_settings(folder / _TOKENIZER_FILE)
    update_tokenizer(folder, **{field: {"image_token": token, **held.get(field, {})}})


def max_tokens(prompter: Prompter) -> int:
    """Length at which sentence-transformers cuts: the template's tokens and those of the text.

    It then writes the last tokens of the template over the end of what is left, so that the text
    itself keeps `max_text_tokens`.
    """
    (shortest,) = prompter.encode([Item(text=_ONE_TOKEN)])
    return len(prompter.head) + len(shortest.tokens) - 1 + prompter.max_text_tokens


def update_tokenizer(folder: Path, **settings: Any) -> None:
    """Change settings of a hub folder's tokenizer."""
    held: Mapping[str, Any] = read_settings(folder / _TOKENIZER_FILE)
    write_settings(folder / _TOKENIZER_FILE, {**held, **settings})
