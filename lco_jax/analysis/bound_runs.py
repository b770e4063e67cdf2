"""Runs beside the bound: their terms and losses from a file, and what the theorem says of each."""

import json
import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from etils import epath

from lco_jax.analysis.bound import Terms, captured_information, paper_bound, valid_bound
from lco_jax.analysis.bound_limits import limits
from lco_jax.analysis.prior import reasons_against


@dataclass(frozen=True)
class Run:
    """One run, to compare its bound with the loss it reached."""

    name: str
    terms: Terms
    measured_loss: float
    """InfoNCE on held-out batches of the same N."""
    invalid: tuple[str, ...] = ()
    """Why the theorem does not cover the run: how its prior depends on the training data."""


def read_runs(path: str) -> list[Run]:
    """Runs of a JSON Lines file with `name`, `measured_loss` and the fields of `Terms`.

    Instead of `information` a line may give `unconditional_loss` and `generative_loss`. A line may
    also give `run`, its run folder, whose manifests say what its prior was trained on, or
    `invalid`: a list of reasons why the theorem does not cover it.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a bad line (`FILE:LINE: what is wrong`).
    """
    file = epath.Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    runs = []
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            runs.append(parse_run(json.loads(line)))
        except (KeyError, TypeError, ValueError) as error:
            what = f"lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}:{number}: {what}") from error
    if not runs:
        raise ValueError(f"{path}: holds no run")
    return runs


def parse_run(record: dict[str, Any]) -> Run:
    """A run from a line of the file that `read_runs` reads.

    Raises:
        KeyError: a field is missing.
        ValueError: a field is unknown or superfluous, or a term impossible.
    """
    values = {
        field.name: record[field.name]
        for field in fields(Terms)
        if record.get(field.name) is not None
    }
    known = {*values, "name", "measured_loss", "invalid", "run"}
    if "information" not in values:
        given = float(record["unconditional_loss"]), float(record["generative_loss"])
        values["information"] = captured_information(*given)
        known |= {"unconditional_loss", "generative_loss"}
    if "slack" not in values and "empirical_loss" not in values:
        raise KeyError("empirical_loss")
    reasons = tuple(map(str, record.get("invalid", ())))
    if record.get("run") is not None:
        reasons += reasons_against(str(record["run"]))
    unknown = sorted(record.keys() - known)
    if unknown:
        raise ValueError(f"has unknown or superfluous fields {unknown}")
    return Run(str(record["name"]), Terms(**values), float(record["measured_loss"]), reasons)


def compare(run: Run) -> dict[str, Any]:
    """The bounds of a run beside its loss, as a record."""
    paper, valid = paper_bound(run.terms), valid_bound(run.terms)
    return {
        "name": run.name,
        "measured_loss": run.measured_loss,
        "invalid": list(run.invalid),
        "paper": paper.total,
        "valid": valid.total,
        "log_n": math.log(run.terms.num_candidates),
        "warm_start": valid.warm_start,
        "complexity": valid.complexity,
        "clipped": valid.clipped,
        **vars(run.terms),
        "paper_slack": paper.slack,
        "slack": valid.slack,
        "limits": asdict(limits(run.terms)),
    }
