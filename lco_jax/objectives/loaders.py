"""The batches of each objective: which parts of an example are encoded, and what they predict."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32

from lco_jax.config import Alignment, DataConfig, Generative, Memory
from lco_jax.data.encode.encoded import Encoded
from lco_jax.data.encode.processor import Processor
from lco_jax.data.errors import RecordError
from lco_jax.data.loader import Loader
from lco_jax.data.pack.batch import Batch, Shape
from lco_jax.data.records import Exchange, Item, Triplet
from lco_jax.data.sources.open import open_source

_NO_WORD = re.compile(r"[^\w']+")


class ContrastiveLoader(Loader[Item]):
    """Batches of triplets: anchors, positives and negatives are the roles."""

    _kind, _num_needed = Triplet, 2

    def __init__(self, config: DataConfig, memory: Memory, processor: Processor, **options: Any):
        """`options` are those of `Loader`.

        Raises:
            ValueError: a batch of one has nothing to tell its positive from.
        """
        super().__init__(config, memory, processor, **options)
        if config.batch_size > 1:
            return
        examples = (self._stream[place] for place in range(self.steps_per_epoch))
        if not all(example.negatives[: config.num_negatives] for example in examples):
            raise ValueError(
                "batch_size=1 with an example without a negative learns nothing: other examples of "
                "the batch are what its positive is told from; use a batch_size of at least 2, "
                "which takes data of at least 2 rows, or give each row a negative"
            )

    def _take_parts(self, example: Triplet | None) -> list[Item | None]:
        wanted = self._config.num_negatives
        if example is None:
            return [None] * (2 + wanted)
        negatives = example.negatives[:wanted]
        lacking = [None] * (wanted - len(negatives))
        return [example.anchor, example.positive, *negatives, *lacking]

    def _try_encode(self, parts: Sequence[Item]) -> list[Encoded | RecordError]:
        return self._processor.try_encode(parts)


class GenerativeLoader(Loader[Exchange]):
    """Batches of prompts with the responses that are to be learned, in one role."""

    _kind, _num_needed = Exchange, 1

    def __init__(
        self,
        config: DataConfig,
        memory: Memory,
        processor: Processor,
        objective: Generative | Alignment,
        **options: Any,
    ):
        """`options` are those of `Loader`."""
        super().__init__(config, memory, processor, **options)
        self._objective = objective

    def _take_parts(self, example: Exchange | None) -> list[Exchange | None]:
        return [example]

    def _try_encode(self, parts: Sequence[Exchange]) -> list[Encoded | RecordError]:
        return self._processor.try_encode_exchanges(parts, self._objective.max_response_tokens)


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

    def _try_encode(self, parts: Sequence[Exchange]) -> list[Encoded | RecordError]:
        spelled = [Exchange(part.prompt, spell(part.response), part.id) for part in parts]
        return [
            found if isinstance(found, RecordError) else self._without_end(found)
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
