"""all-NLI: premise, entailed hypothesis and contradicting hypothesis, from SNLI and MultiNLI."""

from collections.abc import Iterator
from pathlib import Path

from lco_jax.data.sources.pairs import Pair, PairsBuilder
from lco_jax.data.sources.rows import download_from_hub, find_files, read_rows

_REPO = "sentence-transformers/all-nli"
_CONFIG = "triplet"
_LAYOUTS = (("anchor", "positive", "negative"), ("sent0", "sent1", "hard_neg"))


class AllNli(PairsBuilder):
    """NLI triplets from a local copy in the hub dataset's layout or SimCSE's.

    Args:
        source_dir: folder or file of the copy; None downloads the hub dataset.

    Raises:
        ValueError: a config other than `triplet`.

    Source: LCO-Emb §4 (text-only training), SimCSE (`nli_for_simcse.csv`).
    """

    hub_id = _REPO
    language = "en"

    def __init__(self, *, config_name: str, data_dir: str, source_dir: str | None = None):
        if config_name not in ("", _CONFIG):
            raise ValueError(f"all_nli has no config {config_name!r}; use {_CONFIG!r}")
        self._source_dir = source_dir
        super().__init__(config_name=_CONFIG, data_dir=data_dir)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        if self._source_dir is None:
            source = download_from_hub(_REPO, f"{_CONFIG}/*")
        else:
            source = Path(self._source_dir)
        # A copy of the whole hub dataset has other layouts of the same sentences beside this one.
        if (source / _CONFIG).is_dir():
            source = source / _CONFIG
        return {
            split: self._generate_examples(_read(files))
            for split, files in find_files(source).items()
        }


def _read(files: list[Path]) -> Iterator[Pair]:
    for path in files:
        for number, (anchor, positive, negative) in read_rows(path, _LAYOUTS):
            key = f"{path.name}:{number}"
            yield Pair(id=key, anchor=anchor, positive=positive, negatives=[negative])
