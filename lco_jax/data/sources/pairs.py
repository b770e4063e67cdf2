"""Datasets of text pairs: their features and the base of their builders."""

from collections.abc import Iterable, Iterator
from typing import TypedDict

import tensorflow_datasets as tfds

from lco_jax.config import Columns
from lco_jax.data.sources.builder import ArrayRecordBuilder


class Pair(TypedDict):
    """An anchor, its positive, and any number of hard negatives."""

    id: str
    anchor: str
    positive: str
    negatives: list[str]


class PairsBuilder(ArrayRecordBuilder, skip_registration=True):
    """Base of the builders: subclasses say which pairs form which split."""

    columns = Columns(anchor="anchor", positive="positive", negatives=("negatives",), id="id")

    def _info(self) -> tfds.core.DatasetInfo:
        text = tfds.features.Text()
        features = {
            "id": text,
            "anchor": text,
            "positive": text,
            "negatives": tfds.features.Sequence(text),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, pairs: Iterable[Pair]) -> Iterator[tuple[str, Pair]]:
        for pair in pairs:
            yield pair["id"], pair
