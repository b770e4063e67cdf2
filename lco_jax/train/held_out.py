"""What a run is measured on: figures of other data cannot be compared with those it has."""

import dataclasses
from typing import Any

from lco_jax.config import Evaluation, Source, TfdsSource
from lco_jax.config.io import FILE_NAMES, ScienceChangedError, find_changes, to_json
from lco_jax.data.sources.open import open_source

_BY_CONTENT = (*FILE_NAMES, "data_dir", "weight", "max_examples")
"""Settings of a source that matter only as far as the pairs are others, or in training."""


def settings_of(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """What settings say of the held-out pairs, in JSON values (None: there are none)."""
    if evaluation is None:
        return None
    sources = [to_json(source) for source in (evaluation.source, *evaluation.others)]
    return {"sources": sources, "num_pairs": evaluation.num_pairs}


def held_out_of(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """The same with `contents`, which says of each source how many pairs are measured, and their
    digest.

    Raises:
        FileNotFoundError: a source is absent.
        ValueError: a source cannot be read.
    """
    if evaluation is None:
        return None
    sources = (evaluation.source, *evaluation.others)
    contents = [_content(source, evaluation.num_pairs) for source in sources]
    return settings_of(evaluation) | {"contents": contents}


def _content(source: Source, num_pairs: int | None) -> str:
    limits = [limit for limit in (source.max_examples, num_pairs) if limit is not None]
    opened = open_source(dataclasses.replace(source, max_examples=min(limits, default=None)))
    name = f"{opened.name} " if isinstance(source, TfdsSource) else ""
    return f"{name}{len(opened)} pairs {opened.digest}"


def check_same_held_out(
    workdir: str, old: dict[str, Any] | None, new: dict[str, Any] | None
) -> None:
    """Check that a run goes on with the held-out data that it was measured on, if both have any.

    Args:
        old: of the run; without `contents` (earlier revisions wrote none), settings must be equal.
        new: without `contents`, settings alone are compared.

    Raises:
        ScienceChangedError: names what differs, with both values.
    """
    if old is None or new is None:
        return
    by_content = "contents" in old
    names = _names(max(len(old["sources"]), len(new["sources"])))
    found = [
        change
        for name, before, after in zip(names, _padded(old, names), _padded(new, names), strict=True)
        for change in find_changes(name, before, after, ignore=_BY_CONTENT if by_content else ())
    ]
    if not by_content:
        found += find_changes("evaluation.num_pairs", old["num_pairs"], new["num_pairs"])
    elif not found and "contents" in new:
        pairs = zip(names, new["sources"], old["contents"], new["contents"], strict=True)
        for name, source, before, after in pairs:
            where = source.get("path") or source.get("paths") or source.get("name")
            found += find_changes(f"{name} ({where})", before, after)
    if found:
        raise ScienceChangedError(
            f"the run in {workdir} is measured on other held-out data:\n  "
            + "\n  ".join(found)
            + "\nits best checkpoint would be chosen among figures that cannot be compared; give "
            "the former held-out data (--eval-data), or choose a new --workdir"
        )


def _names(count: int) -> list[str]:
    return ["evaluation.source", *(f"evaluation.others.{number}" for number in range(count - 1))]


def _padded(held_out: dict[str, Any], names: list[str]) -> list[Any]:
    sources = held_out["sources"]
    return [*sources, *[None] * (len(names) - len(sources))]
