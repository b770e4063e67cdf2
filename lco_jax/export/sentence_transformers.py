"""The files by which sentence-transformers reads an export as we do.

Without them it takes the mean over all tokens of the bare text. They name the pooling, and hold
our prompt recipe as a chat template through which every text goes. Media are not read: the folder
has a tokenizer and no processor, which for images and sound would also need torchvision.

Source: sentence-transformers 6 Transformer, Pooling and Normalize.
"""

import json
from pathlib import Path
from typing import Any

from lco_jax.data.prompt import Prompter
from lco_jax.data.records import Item

_MODULES = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
_PROCESSORS = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
_ONE_TOKEN = "0"


def write_modules(folder: Path, prompter: Prompter, width: int) -> None:
    """Turn a hub folder into one of sentence-transformers, with its modules and their settings."""
    for name in _PROCESSORS:
        (folder / name).unlink(missing_ok=True)
    # Else the family's processor is looked for.
    update_tokenizer(folder, processor_class="AutoTokenizer")
    modules = [
        {
            "idx": index,
            "name": str(index),
            "path": path,
            "type": f"sentence_transformers.models.{kind}",
        }
        for index, (path, kind) in enumerate(_MODULES.items())
    ]
    output = {"method": "forward", "method_output_name": "last_hidden_state"}
    transformer = {
        "transformer_task": "feature-extraction",
        "modality_config": {"text": output, "message": {**output, "format": "flat"}},
        "module_output_name": "token_embeddings",
        "processing_kwargs": {"chat_template": {"chat_template": chat_template(prompter)}},
        "max_seq_length": max_tokens(prompter),
        # Texts laid end to end would need positions that the multimodal decoders do not take.
        "unpad_inputs": False,
    }
    pooling = {"embedding_dimension": width, "pooling_mode": "lasttoken", "include_prompt": True}
    model = {
        "model_type": "SentenceTransformer",
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine",
    }
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", transformer)
    _write(folder / "1_Pooling" / "config.json", pooling)
    _write(folder / "2_Normalize" / "config.json", {})
    _write(folder / "config_sentence_transformers.json", model)


def chat_template(prompter: Prompter) -> str:
    """A template that renders one message with a text as `prompter` does."""
    # JSON strings are Jinja strings.
    before = json.dumps(prompter.template_head, ensure_ascii=False)
    after = json.dumps(prompter.prompt + prompter.template_tail, ensure_ascii=False)
    return (
        "{%- if messages | length != 1 or messages[0]['content'] is not string -%}"
        "{{- raise_exception('this model embeds one text at a time, without a prompt') -}}"
        "{%- endif -%}"
        f"{{{{- {before} + messages[0]['content'] + {after} -}}}}"
    )


def max_tokens(prompter: Prompter) -> int:
    """Length at which sentence-transformers cuts: the template's tokens and those of the text.

    It then writes the last tokens of the template over the end of what is left, so that the text
    itself keeps `max_text_tokens`.
    """
    (shortest,) = prompter.encode([Item(text=_ONE_TOKEN)])
    return len(prompter.head) + len(shortest.tokens) - 1 + prompter.max_text_tokens


def update_tokenizer(folder: Path, **settings: Any) -> None:
    """Change settings of a hub folder's tokenizer."""
    file = folder / "tokenizer_config.json"
    held = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    _write(file, held | settings)


def _write(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
