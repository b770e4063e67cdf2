"""Prepared TFDS datasets of any kind, by folder, at random access and without TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from lco_jax.config import Columns
from lco_jax.data.sources.columns import feature_of, infer_columns

_FEATURES_FILE = "features.json"


class PreparedRecords(Sequence[dict]):
    """The records of a prepared split as plain values; pickles, so that processes can share it.

    Texts are `str`, as are the names of classes; images, and strings of another kind, are the bytes
    that were stored. Numbers are Python's, arrays and sequences lists, groups of features dicts.

    Args:
        source: as `tfds.core.DatasetBuilder.as_data_source` makes it, with images not decoded.
        columns: what is what; records also have its `aliases`.
    """

    def __init__(self, source: Sequence[dict], columns: Columns):
        self._source, self.columns = source, columns

    @property
    def features(self) -> tfds.features.FeaturesDict:
        """How TFDS describes what is stored, without aliases."""
        return self._source.dataset_info.features

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        record = _plain(self._source[index], self.features)
        aliases = {name: feature_of(record, path) for name, path in self.columns.aliases}
        return record | aliases


def open_prepared(
    folder: epath.PathLike, split: str, columns: Columns | None = None
) -> PreparedRecords:
    """The records of a split of the dataset in `folder`.

    Args:
        folder: of one version of a dataset.
        split: name of a split, or a slice of one (`"train[:10%]"`).
        columns: what is what (None: as the names of the features say).

    Raises:
        ValueError: no such split, an empty one, no random access, or columns that are not there.
    """
    # TFDS pickles a builder along with its source, and can rebuild only its own kinds.
    builder = tfds.builder_from_directory(folder)
    name, features = builder.info.full_name, builder.info.features
    if split.partition("[")[0] not in builder.info.splits:
        raise ValueError(f"{name!r} has no split {split!r}; use {sorted(builder.info.splits)}")
    columns = columns or infer_columns(features)
    if columns is None:
        raise ValueError(
            f"the features {sorted(_paths(features))} of {name!r} do not say what is shown and "
            "what belongs to it; name them in the source: columns=Columns(anchor=..., positive=...)"
        )
    try:
        source = builder.as_data_source(split, decoders=_undecoded(features))
    except NotImplementedError as error:
        raise ValueError(
            f"{folder} is in a format without random access; prepare it with "
            'file_format="array_record"'
        ) from error
    if not len(source):
        raise ValueError(f"split {split!r} of {name!r} holds no record")
    records = PreparedRecords(source, columns)
    _check_columns(name, records)
    return records


def find_prepared(name: str, data_dir: str) -> epath.Path | None:
    """The folder of a dataset within `data_dir`: `NAME[/CONFIG][/VERSION]`.

    The newest version is taken, and the config if there is but one.

    Raises:
        ValueError: there are several configs.
    """
    folder = epath.Path(data_dir) / name
    if (folder / _FEATURES_FILE).exists():
        return folder
    if (newest := _newest_version(folder)) is not None:
        return newest
    configs = {path.name: _newest_version(path) for path in _folders_in(folder)}
    found = {config: newest for config, newest in configs.items() if newest is not None}
    if len(found) > 1:
        names = sorted(f"{name}/{config}" for config in found)
        raise ValueError(f"{name!r} in {data_dir} has several configs; use one of {names}")
    return next(iter(found.values()), None)


def _newest_version(folder: epath.Path) -> epath.Path | None:
    versions = [
        path
        for path in _folders_in(folder)
        if tfds.core.Version.is_valid(path.name) and (path / _FEATURES_FILE).exists()
    ]
    return max(versions, key=lambda path: tfds.core.Version(path.name), default=None)


def _folders_in(folder: epath.Path) -> list[epath.Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


# ------------------------------------------------------------------------- values of features


class _Undecoded(tfds.decode.SkipDecoding):
    """Leaves images as they are stored, those of a sequence, too."""

    def decode_batch_example_np(self, example: Sequence[bytes]) -> Sequence[bytes]:
        return example


def _undecoded(features: Mapping) -> dict:
    """Decoders of all images in a group of features."""
    decoders = {}
    for name, feature in features.items():
        while isinstance(feature, tfds.features.Sequence):
            feature = feature.feature
        if isinstance(feature, tfds.features.Image):
            decoders[name] = _Undecoded()
        elif isinstance(feature, tfds.features.FeaturesDict) and (inner := _undecoded(feature)):
            decoders[name] = inner
    return decoders


def _plain(value: object, feature: tfds.features.FeatureConnector) -> object:
    match feature:
        case tfds.features.FeaturesDict():
            return {name: _plain(value[name], part) for name, part in feature.items()}
        case tfds.features.Sequence():
            if isinstance(value, dict):  # of groups: TFDS makes it a group of sequences
                return {
                    name: [_plain(one, part) for one in value[name]]
                    for name, part in feature.feature.items()
                }
            return [_plain(one, feature.feature) for one in value]
        case tfds.features.Text():
            return value.decode()
        case tfds.features.ClassLabel():
            return feature.int2str(value) if value >= 0 else ""  # -1 is an unknown one
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _paths(features: Mapping) -> Iterator[str]:
    """The names of all features, those of groups behind the names of the groups."""
    for name, feature in features.items():
        if isinstance(feature, tfds.features.FeaturesDict):
            yield from (f"{name}/{path}" for path in _paths(feature))
        else:
            yield name


def _check_columns(name: str, records: PreparedRecords) -> None:
    """Compare the columns with the first record.

    Raises:
        ValueError: it lacks a feature, or has a medium that is no file.
    """
    columns = records.columns
    texts = (columns.anchor, columns.positive, columns.id, *columns.negatives)
    media = (columns.image, columns.audio, columns.video)
    try:
        record = records[0]
        values = {path: feature_of(record, path) for path in filter(None, texts + media)}
    except KeyError as error:
        known = sorted([*_paths(records.features), *(alias for alias, _ in columns.aliases)])
        raise ValueError(
            f"{name!r} has no feature {error.args[0]!r}; columns must name some of {known}"
        ) from error
    for path in filter(None, media):
        value = values[path]
        files = value if isinstance(value, list) and path == columns.image else [value]
        if not all(isinstance(file, bytes) for file in files):
            raise ValueError(
                f"{path!r} of {name!r} holds {records.features[path.split('/')[0]]}; expected the "
                "bytes of files, as tfds.features.Image or tfds.features.Scalar(np.str_) keeps them"
            )
