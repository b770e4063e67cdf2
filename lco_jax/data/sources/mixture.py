"""Sources of examples, and the one endless sequence that a mixture of them makes."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import grain
import numpy as np

from lco_jax.config import DataConfig, JsonlSource, Source, TfdsSource
from lco_jax.data.records import Exchange, Item, Record, Triplet, parse_exchange, parse_triplet
from lco_jax.data.sources.jsonl import JsonlRecords
from lco_jax.lab import corpora as builders

_logger = logging.getLogger(__name__)

_DIGEST_RECORDS = 64
"""Of a prepared dataset, evenly spread; its name, version and size are hashed as well."""


@dataclass(frozen=True)
class OpenSource:
    """A source that is ready to be read at random access."""

    name: str
    records: Sequence[Record]
    digest: str
    """Hash of the content."""

    def __len__(self) -> int:
        return len(self.records)


def open_source(source: Source, kind: type[Record] = Triplet) -> OpenSource:
    """Open and check the file or prepared dataset that `source` names.

    Args:
        kind: what its records become: triplets, or exchanges for a generative stage.

    Raises:
        FileNotFoundError: the file is absent, or the dataset not prepared.
        ValueError: a line of the file is bad (both are named), or the dataset unknown or without
            the field that is to be generated.
    """
    match source:
        case JsonlSource():
            parse = parse_triplet if kind is Triplet else parse_exchange
            lines = JsonlRecords(source.path, parse, source.max_examples)
            return OpenSource(PurePath(source.path).name, lines, lines.digest)
        case TfdsSource():
            prepared = builders.open_source(source.name, source.split, source.data_dir)
            make = _to_triplet
            if kind is Exchange:
                make = _exchange_maker(source, prepared[0])
            records = _PreparedRecords(prepared, make, source.max_examples)
            return OpenSource(f"{source.name}:{source.split}", records, records.digest())


def read_pairs(source: Source, num_pairs: int | None) -> list[Triplet]:
    """The first `num_pairs` triplets of a source (None: all), e.g. for an evaluation."""
    triplets = open_source(source).records
    return [triplets[index] for index in range(len(triplets))[:num_pairs]]


def all_items(config: DataConfig, kind: type[Record] = Triplet) -> Iterator[Item]:
    """Every item of every source once."""
    for source in config.sources:
        for record in open_source(source, kind).records:
            if isinstance(record, Triplet):
                yield from (record.anchor, record.positive, *record.negatives)
            else:
                yield record.prompt


class ExampleStream:
    """The endless sequence of training examples: a pure function of seed, sources and index.

    Step `s` consumes the examples `s * batch_size` to `(s + 1) * batch_size - 1`, whatever the
    number of processes. Each source is shuffled anew in each pass over it. Sources alternate by
    weight, example by example, or batch by batch if the config says `homogeneous`.

    Raises:
        ValueError: a source is too small to fill a batch.
    """

    def __init__(self, config: DataConfig, seed: int, kind: type[Record] = Triplet):
        sources = [open_source(source, kind) for source in config.sources]
        weights = [source.weight for source in config.sources]
        num_examples = sum(map(len, sources))
        self.steps_per_epoch = num_examples // config.batch_size
        self._block = config.batch_size if config.homogeneous else 1
        # Batches of one source never straddle two passes: a repeated example is a false negative.
        whole_batches = config.homogeneous or len(sources) == 1
        for source, weight in zip(sources, weights, strict=True):
            share = 1.0 if whole_batches else weight / sum(weights)
            if len(source) >= share * config.batch_size:
                continue
            message = (
                f"batch_size={config.batch_size} takes {share * config.batch_size:.0f} examples of "
                f"{source.name}, which has {len(source)}"
            )
            if whole_batches:
                raise ValueError(f"{message}; use a smaller batch_size or more data")
            _logger.warning("%s: it will repeat examples inside a batch", message)
        self._examples = [
            _shuffle_endlessly(source, seed, position, config.batch_size if whole_batches else 1)
            for position, source in enumerate(sources)
        ]
        # Element k of this mixture says which source serves block k, and which of its blocks.
        self._choices = grain.MapDataset.mix(
            [_number_blocks(position) for position in range(len(sources))], weights
        )
        self.fingerprint = "; ".join(
            [f"{source.name} {len(source)} {source.digest}" for source in sources]
            + [f"order seed={seed} batch_size={config.batch_size} homogeneous={config.homogeneous}"]
            + [f"weights {' '.join(f'{weight:g}' for weight in weights)}"]
        )
        """What decides the sequence, in words."""

    def __getitem__(self, index: int) -> Record:
        block, offset = divmod(index, self._block)
        position, own_block = self._choices[block]
        return self._examples[position][own_block * self._block + offset]


def _shuffle_endlessly(
    source: OpenSource, seed: int, position: int, batch_size: int
) -> grain.MapDataset:
    """All passes over a source, each in its own order and cut to whole batches."""
    own_seed = int(np.random.SeedSequence([seed, position]).generate_state(1)[0])
    shuffled = grain.MapDataset.source(source.records).shuffle(seed=own_seed)
    return shuffled.slice(slice(len(source) // batch_size * batch_size)).repeat()


def _number_blocks(position: int) -> grain.MapDataset:
    return grain.MapDataset.range(np.iinfo(np.int64).max).map(lambda block: (position, block))


class _PreparedRecords(Sequence[Record]):
    """The records of a prepared dataset, read at random access."""

    def __init__(
        self,
        records: Sequence[Mapping],
        make: Callable[[Mapping], Record],
        max_examples: int | None,
    ):
        self._records, self._make = records, make
        self._size = len(range(len(records))[:max_examples])

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Record:
        return self._make(self._records[index])

    def digest(self) -> str:
        chosen = np.linspace(0, self._size - 1, min(self._size, _DIGEST_RECORDS)).astype(int)
        records = [self._records[index] for index in chosen.tolist()]
        content = json.dumps(records, sort_keys=True, default=bytes.hex)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _to_triplet(record: Mapping) -> Triplet:
    if "image" in record:
        shown = Item(images=(record["image"],), id=record["id"])
        return Triplet(shown, Item(record["name"]), id=record["id"])
    if "audio" in record:
        heard = Item(audios=(record["audio"],), id=record["id"])
        return Triplet(heard, Item(record["transcript"]), id=record["id"])
    return Triplet(
        anchor=Item(record["anchor"]),
        positive=Item(record["positive"]),
        negatives=tuple(Item(text) for text in record["negatives"]),
        id=record["id"],
    )


def _exchange_maker(source: TfdsSource, example: Mapping) -> Callable[[Mapping], Exchange]:
    """How the records of a prepared dataset become prompts with responses."""
    answers = {"image": "name", "audio": "transcript"}
    kinds = [kind for kind in answers if kind in example]
    field = source.response or (answers[kinds[0]] if kinds else "positive")
    if field not in example:
        raise ValueError(
            f"{source.name} has no field {field!r} to generate; response must be one of "
            f"{sorted(example)}"
        )

    def make(record: Mapping) -> Exchange:
        answer = record[field]
        response = answer if isinstance(answer, str) else ", ".join(answer)
        if source.prompt is None:
            prompt = Item()
        elif "image" in record:
            prompt = Item(source.prompt, images=(record["image"],), id=record["id"])
        elif "audio" in record:
            prompt = Item(source.prompt, audios=(record["audio"],), id=record["id"])
        else:
            prompt = Item("\n".join(filter(None, (record["anchor"], source.prompt))))
        return Exchange(prompt, response, record["id"])

    return make
