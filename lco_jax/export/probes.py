"""Texts by which an export is compared with the model that it was made from."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float

from lco_jax.config import Memory
from lco_jax.data.records import Item
from lco_jax.evaluate.encoder import Encoder
from lco_jax.train.restore import OpenedModel

GOLDEN_FILE = "golden.json"
"""In an export: token ids and vectors of some probes, by which any server can be checked."""

TEXTS = (
    "a cat",
    "A small cat sleeps on the warm roof of a red car.",
    "  two spaces come first",
    "\n\nA text may begin with empty lines",
    "and end with them, too.\n\n",
    "7",
    "In 1969, 600 million people watched 2 men walk 384,400 km away.",
    "What is the capital of Indonesia?",
    "def area(radius): return 3.14159 * radius ** 2",
    "Die Würde des Menschen ist unantastbar.",
    "東京は日本の首都です。",
    "इंडोनेशिया एक द्वीपसमूह है।",
    "عاصمة مصر هي القاهرة",
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ 😀👩‍🚀",
    "cafe\u0301 in another normal form than café",
    "A page of several sentences. " * 16,
)
"""Short and long ones, in several scripts, with white space where tokenizers differ."""

_NUM_GOLDEN, _NUM_FULL, _NUM_LEADING = 6, 2, 8
_ROW_MULTIPLE = 64


@dataclasses.dataclass(frozen=True)
class Probes:
    """Texts and their unit vectors, computed by our encoder."""

    texts: tuple[str, ...]
    token_ids: tuple[list[int], ...]
    vectors: Float[np.ndarray, "N E"]

    def write_golden(self, folder: Path) -> None:
        """Write the first probes as `golden.json`, two of them with whole vectors."""
        entries = []
        for index in range(_NUM_GOLDEN):
            vector = self.vectors[index].tolist()
            entry = {"text": self.texts[index], "token_ids": self.token_ids[index]}
            entry["first_components"] = vector[:_NUM_LEADING]
            if index < _NUM_FULL:
                entry["vector"] = vector
            entries.append(entry)
        content = {"dimension": self.vectors.shape[1], "probes": entries}
        text = json.dumps(content, indent=2, ensure_ascii=False)
        (folder / GOLDEN_FILE).write_text(text + "\n", encoding="utf-8")


def encode_probes(model: OpenedModel, mesh: jax.sharding.Mesh) -> Probes:
    """The probes as `model` embeds them, and one that is longer than its recipe allows."""
    # A word and its space are at least one token.
    too_long = "far too long " * (model.processor.prompter.max_text_tokens // 3 + 1)
    items = [Item(text=text) for text in (*TEXTS, too_long)]
    encoded = model.processor.encode(items)
    longest = max(len(entry.tokens) for entry in encoded)
    memory = Memory(row_tokens=(-(-longest // _ROW_MULTIPLE) * _ROW_MULTIPLE,))
    encoder = Encoder(model.graph, model.params, model.processor, mesh, memory=memory)
    # Accelerators otherwise shorten float32 products, which torch on a CPU does not.
    with jax.default_matmul_precision("highest"):
        pooled = encoder.encode(items)
    head = model.processor.head.tolist()
    return Probes(
        texts=tuple(item.text for item in items),
        token_ids=tuple(head + entry.tokens.tolist() for entry in encoded),
        vectors=pooled / np.linalg.norm(pooled, axis=1, keepdims=True),
    )
