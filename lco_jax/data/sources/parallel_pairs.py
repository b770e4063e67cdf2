"""Translated sentence pairs in many languages, in the manner of the paper's Scale-1M set."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

from lco_jax.data.sources.pairs import Pair, PairsBuilder
from lco_jax.data.sources.rows import download_from_hub, find_files, read_rows

_REPO = "sentence-transformers/parallel-sentences-talks"
_LAYOUTS = (("src", "tgt"), ("english", "non_english"))
_EVERY = "mixed"


class ParallelPairs(PairsBuilder):
    """Sentence pairs without negatives: of one language pair, or of all of them evenly.

    The config is a language pair such as `en-id`: files in a folder of that name or with it in
    their own name. Without one (`mixed`), every file is read.

    Args:
        source_dir: folder or file of a local copy; None downloads a hub dataset.
        max_pairs: at most so many pairs for training, drawn evenly from the files.
        seed: of the draw.

    Raises:
        ValueError: `max_pairs` is not positive.
    """

    hub_id = _REPO

    def __init__(
        self,
        *,
        config_name: str,
        data_dir: str,
        source_dir: str | None = None,
        max_pairs: int = 1_000_000,
        seed: int = 0,
    ):
        if max_pairs < 1:
            raise ValueError(f"max_pairs={max_pairs} must be at least 1")
        self._source_dir = source_dir
        self._max_pairs = max_pairs
        self._seed = seed
        super().__init__(config_name=config_name or _EVERY, data_dir=data_dir)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        config = self.builder_config.name
        if self._source_dir is None:
            folder = "en-*" if config == _EVERY else config
            source = download_from_hub(_REPO, f"{folder}/*")
        else:
            source = Path(self._source_dir)
        splits = {}
        for split, files in find_files(source).items():
            chosen = files if config == _EVERY else _files_of(config, files)
            if chosen:
                limit = self._max_pairs if split == "train" else None
                splits[split] = self._generate_examples(_sample(chosen, source, limit, self._seed))
        if not splits:
            raise FileNotFoundError(
                f"{source} has no file for {config!r}; expected {config}/train.parquet, "
                f"{config}.tsv or the like"
            )
        return splits


def _files_of(config: str, files: list[Path]) -> list[Path]:
    """Those in a folder called like the language pair, else those that mention it in their name."""
    in_folder = [path for path in files if config in path.parent.parts]
    return in_folder or [path for path in files if re.search(rf"\b{config}\b", path.name)]


def _sample(files: list[Path], source: Path, limit: int | None, seed: int) -> Iterator[Pair]:
    """At most `limit` pairs of all files together."""
    counts = [sum(1 for _ in read_rows(path, _LAYOUTS, any_names=True)) for path in files]
    quotas = counts if limit is None else even_quotas(counts, limit)
    for path, count, quota in zip(files, counts, quotas, strict=True):
        name = path.name if path == source else path.relative_to(source).as_posix()
        chosen = set(random.Random(f"{seed} {name}").sample(range(count), quota))
        rows = read_rows(path, _LAYOUTS, any_names=True)
        for index, (number, (anchor, positive)) in enumerate(rows):
            if index in chosen:
                key = f"{name}:{number}"
                yield Pair(id=key, anchor=anchor, positive=positive, negatives=[])


def even_quotas(counts: list[int], limit: int) -> list[int]:
    """How many of each count to take so that all are as equal as possible and sum to `limit`."""
    quotas = [0] * len(counts)
    for rank, index in enumerate(sorted(range(len(counts)), key=counts.__getitem__)):
        quotas[index] = min(counts[index], (limit - sum(quotas)) // (len(counts) - rank))
    return quotas
