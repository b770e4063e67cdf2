"""What all datasets of text pairs share: features, format, and reading at random access."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, TypedDict

import tensorflow_datasets as tfds


class Pair(TypedDict):
    """An anchor, its positive, and any number of hard negatives."""

    id: str
    anchor: str
    positive: str
    negatives: list[str]


class PairsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders: subclasses say which pairs form which split."""

    VERSION = tfds.core.Version("1.0.0")
    # TFDS downloads nothing here, so there are no checksums for it to look up beside the code.
    url_infos: ClassVar[dict] = {}

    def __init__(self, *, config_name: str, data_dir: str):
        config = tfds.core.BuilderConfig(name=config_name)
        super().__init__(config=config, data_dir=data_dir, file_format="array_record")

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


def read_split(builder: PairsBuilder, split: str) -> "PairsSource":
    """The examples of a split that `builder` has prepared."""
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    reader = tfds.builder_from_directory(builder.data_path)
    return PairsSource(reader.as_data_source(split))


class PairsSource(Sequence[Pair]):
    """A split of a prepared dataset; pickles, so loader processes can share it."""

    def __init__(self, source: Sequence[dict]):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        record = self._source[index]
        return Pair(
            id=record["id"].decode(),
            anchor=record["anchor"].decode(),
            positive=record["positive"].decode(),
            negatives=[text.decode() for text in record["negatives"]],
        )
