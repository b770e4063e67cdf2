"""Queries against a corpus: what is new is encoded, what is nearest is found."""

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lco_jax.data.records import Item, MediaSource
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.search.corpus import KINDS, Corpus, Kind, kind_of
from lco_jax.search.exact import semantic_search

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """An item that was found."""

    rank: int
    """From 1."""
    score: float
    """Cosine."""
    corpus_id: int
    """Its place in the corpus."""
    item: Item

    @property
    def name(self) -> str:
        """Its id, else the names of its files, else its number, unless it has a text."""
        files = ", ".join(path.rsplit("/", 1)[-1] for path in paths_of(self.item))
        return self.item.id or files or ("" if self.item.text else str(self.corpus_id))


@dataclass(frozen=True)
class Ranking:
    """What is nearest to a query, best first."""

    query: Item
    matches: list[Match]
    kind: Kind | None = None
    """Of all matches, if each kind was searched by itself."""


@dataclass(frozen=True)
class Found:
    """The outcome of a search."""

    corpus: str
    model: str
    rankings: list[Ranking]
    num_items: int
    """That were searched."""
    num_encoded: int
    """That no vector was known of before."""
    errors: dict[int, str]
    """What is wrong with items that were left out, by their place in the corpus."""
    warnings: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same in values of JSON."""
        rankings = [
            {
                "query": _item_fields(ranking.query),
                "kind": ranking.kind,
                "hits": [
                    {
                        "rank": match.rank,
                        "score": match.score,
                        "corpus_id": match.corpus_id,
                        **_item_fields(match.item),
                    }
                    for match in ranking.matches
                ],
            }
            for ranking in self.rankings
        ]
        return asdict(self) | {"rankings": rankings}


def paths_of(item: Item) -> list[str]:
    """Of its media; content that has no path is left out."""
    sources: Iterable[MediaSource] = (*item.images, *item.audios, *item.videos)
    paths = [source for source in sources if isinstance(source, str)]
    return [path for path in paths if not path.startswith("data:")]


def find(
    embedder: Embedder,
    model: str,
    corpus: Corpus,
    queries: Sequence[Item],
    *,
    top_k: int,
    each_kind: bool = False,
    cache: Path | None,
) -> Found:
    """Encode the queries and what of the corpus is new; find for each query the nearest items.

    Args:
        model: what the embedder was opened by.
        each_kind: find so many texts, so many images and so on.
        cache: folder of known vectors (None: none are kept).

    Raises:
        ValueError: a query cannot be encoded, or no item of the corpus can; vectors of another
            width.
    """
    asked = embedder.encode_query(list(queries))
    warnings: list[str] = []
    if corpus.vectors is None:
        vectors, errors, num_encoded = _encode(embedder, corpus.items, cache)
    else:
        vectors, num_encoded = corpus.vectors, 0
        errors = {i: str(item) for i, item in enumerate(corpus.items) if _is_bad(item)}
        warnings += _check_vectors(embedder, corpus)
    good = [index for index in range(len(corpus)) if index not in errors]
    if not good:
        raise ValueError(
            f"{corpus.name}: none of {len(errors)} items can be searched; the first: {errors[0]}"
        )
    found = dict(_hits(asked, vectors, corpus.items, good, top_k, each_kind))
    rankings = [
        Ranking(query, hits[number], kind)
        for number, query in enumerate(queries)
        for kind, hits in found.items()
    ]
    return Found(corpus.name, model, rankings, len(good), num_encoded, errors, tuple(warnings))


def _hits(
    queries: Float[np.ndarray, "Q E"],
    vectors: Float[np.ndarray, "N E"],
    items: Sequence[Item],
    good: list[int],
    top_k: int,
    each_kind: bool,
) -> Iterator[tuple[Kind | None, list[list[Match]]]]:
    """The matches of each query, for each kind of item or for all (None)."""
    kinds = {row: kind_of(items[row]) for row in good}
    for kind in [kind for kind in KINDS if kind in kinds.values()] if each_kind else [None]:
        rows = [row for row in good if kind in (None, kinds[row])]
        searched = vectors if len(rows) == len(vectors) else vectors[rows]
        matches = []
        for hits in semantic_search(queries, searched, top_k=top_k):
            places = [rows[hit["corpus_id"]] for hit in hits]
            ranked = enumerate(zip(hits, places, strict=True), start=1)
            matches.append(
                [Match(rank, hit["score"], row, items[row]) for rank, (hit, row) in ranked]
            )
        yield kind, matches


def _encode(
    embedder: Embedder, items: Sequence[Item | ValueError], cache: Path | None
) -> tuple[Float[np.ndarray, "N E"], dict[int, str], int]:
    """Vectors, zero where there is an error, and how many of them were not known."""
    errors = {index: str(item) for index, item in enumerate(items) if _is_bad(item)}
    for index, item in enumerate(items):
        if index not in errors and (lacking := _unread(embedder, item)):
            errors[index] = f"the model does not read {lacking}"
    good = [index for index in range(len(items)) if index not in errors]
    own = [items[index] for index in good]
    vectors = np.zeros((len(items), embedder.width), np.float32)
    found: dict[int, ValueError] = {}
    with contextlib.ExitStack() as stack:
        folder = cache or stack.enter_context(tempfile.TemporaryDirectory())
        known = VectorCache(folder, embedder.revision, embedder.width)
        num_known = len(known)
        if own:
            vectors[good] = known.encode(_encoder(embedder), own, errors=found)
    errors |= {good[index]: str(error) for index, error in found.items()}
    return vectors, dict(sorted(errors.items())), len(known) - num_known


def _encoder(embedder: Embedder) -> Callable[..., Float[np.ndarray, "N E"]]:
    def encode(items: Sequence[Item], errors: dict[int, ValueError]) -> np.ndarray:
        log.info("encoding %d new items", len(items))
        return embedder.encode(items, errors=errors, show_progress_bar=True)

    return encode


def _unread(embedder: Embedder, item: Item) -> str:
    """The media of an item that the model does not read."""
    lacking = [kind for kind, own in item.media.items() if own and not embedder.supports(kind)]
    return " and ".join(lacking)


def _check_vectors(embedder: Embedder, corpus: Corpus) -> list[str]:
    width = corpus.vectors.shape[1]
    if width != embedder.width:
        raise ValueError(
            f"{corpus.name}: vectors of width {width}, but the model gives {embedder.width}; "
            "search with the model (and --truncate-dim) that made them"
        )
    made_by = corpus.made_by
    if not made_by:
        return [
            f"{corpus.name} does not say which model made its vectors; scores of another "
            "model's mean nothing"
        ]
    if made_by.get("revision") != embedder.revision:
        return [
            f"{corpus.name}: its vectors were made by {made_by.get('model')} in another state "
            "(weights, checkpoint or settings); scores may mean nothing: embed again"
        ]
    return []


def _is_bad(item: Item | ValueError) -> bool:
    return isinstance(item, ValueError)


def _item_fields(item: Item) -> dict[str, Any]:
    fields = {"id": item.id, "kind": kind_of(item), "text": item.text, "paths": paths_of(item)}
    return {name: value for name, value in fields.items() if value}
