"""Tiny tokenizers of SentencePiece's kind: those of Llama 2 and Mistral, in all their spellings."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tokenizers import CHAT_TEMPLATE

BLANKS = ("prepended", "first", "always", "never", "words")
"""How a blank is put before texts: by a normalizer, or by Metaspace according to its scheme; the
last one divides texts at blanks, and is `first` otherwise."""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"mistral": MISTRAL, "chatml": CHAT_TEMPLATE.replace("MEDIA\n", "")}
CONTROL = {"mistral": (), "chatml": ("<|im_start|>", "<|im_end|>"), "v3": ("[INST]", "[/INST]")}
"""Beside `<s>` and `</s>`."""
_FIXED = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
_CORPUS = (
    "You are a helpful assistant. [INST] a word [/INST] user assistant system",
    "Summarize the above text in one word: the quick brown fox jumps over the lazy dog",
    "a person on a horse jumps over a broken down airplane; two women are watching it",
    "<s> </s> < s > [ INST ] im_start im_end | abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ 0123456789",
)


def write_sentencepiece(folder: Path, blank: str, template: str = "mistral") -> Path:
    """Write a BPE tokenizer with bytes for what it does not know, whose merges make `<s>`.

    Args:
        blank: one of `BLANKS`.
        template: a key of `CONTROL`.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=len(_FIXED) + 200, special_tokens=list(_FIXED), show_progress=False
    )
    tokenizer.train_from_iterator([line for line in _CORPUS for _ in range(3)], trainer)
    spaces = decoders.Replace("▁", " ")
    steps = [spaces, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps if blank != "never" else steps[:-1])
    if blank == "prepended":
        replace = normalizers.Replace(" ", "▁")
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    content = json.loads(tokenizer.to_str())
    scheme = {"type": "Metaspace", "replacement": "▁", "split": blank == "words"}
    scheme["prepend_scheme"] = "first" if blank == "words" else blank
    content["pre_tokenizer"] = None if blank == "prepended" else scheme
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < 3]
    # Control tokens, runs of blanks, and a letter with the line before it.
    chains = (("<", "s", ">"), ("<", "/", "s", ">"), ("▁", "▁", "▁"), ("\n", "q"))
    _add_merges(content["model"], *chains)
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens(list(CONTROL[template]))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = TEMPLATES.get(template, MISTRAL)
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(
        json.dumps({"model_type": "mistral", "vocab_size": len(tokenizer.get_vocab())})
    )
    return folder


def _add_merges(model: dict, *chains: tuple[str, ...]) -> None:
    """Let characters be joined one after the other, before all else."""
    added = []
    model["vocab"].setdefault("\n", len(model["vocab"]))
    for chain in chains:
        joined = chain[0]
        for char in chain[1:]:
            added.append([joined, char])
            joined += char
            model["vocab"].setdefault(joined, len(model["vocab"]))
    model["merges"] = added + model["merges"]
