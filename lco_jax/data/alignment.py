"""Batches for alignment: media, and the tokens that name what they show or say."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lco_jax.config import Alignment, DataConfig, Memory
from lco_jax.data.batch import Batch, Shape
from lco_jax.data.encoded import Encoded
from lco_jax.data.loader import GenerativeLoader
from lco_jax.data.processor import Processor
from lco_jax.data.records import Exchange
from lco_jax.data.sources import open_source

_NO_WORD = re.compile(r"[^\w']+")


class AlignmentLoader(GenerativeLoader):
    """Batches of media with their words; targets are the words' tokens, without an end, and a token
    that follows itself is one.
    """

    def __init__(
        self,
        config: DataConfig,
        memory: Memory,
        processor: Processor,
        objective: Alignment,
        **options: Any,
    ):
        """`options` are those of `Loader`."""
        super().__init__(config, memory, processor, objective, **options)
        self._vocabulary = _vocabulary(config, processor)

    def _try_encode(self, parts: Sequence[Exchange]) -> list[Encoded | ValueError]:
        spelled = [Exchange(part.prompt, spell(part.response), part.id) for part in parts]
        return [
            found if isinstance(found, ValueError) else self._without_end(found)
            for found in super()._try_encode(spelled)
        ]

    def _without_end(self, encoded: Encoded) -> Encoded:
        targets = encoded.targets.copy()
        again = targets[1:] == targets[:-1]
        targets[1:][again] = -1
        targets[targets == self._processor.prompter.end_token] = -1
        return encoded._replace(targets=targets)

    def _pack(self, loaded: tuple) -> tuple[int, Shape, Batch, int]:
        step, shape, batch, unreadable = super()._pack(loaded)
        vocabulary = np.tile(self._vocabulary, (len(batch.tokens), 1))
        return step, shape, batch._replace(vocabulary=vocabulary), unreadable


def spell(text: str) -> str:
    """The words of a text as they stand within a sentence: lower case, a blank before each."""
    return "".join(f" {word}" for word in _NO_WORD.split(text.lower()) if word)


def _vocabulary(config: DataConfig, processor: Processor) -> Int32[np.ndarray, "V"]:
    """All tokens of all responses, ascending."""
    texts = {
        spell(exchange.response)
        for source in config.sources
        for exchange in open_source(source, Exchange).records
    }
    rows = processor.prompter.tokens_of(sorted(texts))
    return np.unique(np.concatenate([np.array(row, np.int32) for row in rows]))
