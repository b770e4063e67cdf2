"""What the bound of Theorem 1 can say at all: its least value, and what it would take to say more
than that an encoder knows nothing.

An encoder that knows nothing has a loss of log N, so a bound says something below log N. Whatever
was learned, the root leaves at least its value at KL = 0; and with the least slack the rest is at
least L_emp, so generation can lower the bound no further than the ordinary PAC-Bayes bound.
"""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from lco_jax.analysis.bound import Terms, loss_range, valid_bound, valid_constant

_MOST_SAMPLES = 10**18


@dataclass(frozen=True)
class Limits:
    """Of the valid bound, in nats; everything else as in the terms."""

    least: float
    """The bound at KL = 0: no training on so many samples gets below it."""
    needed_samples: int | None
    """From how many samples on the bound is below log N; None: from none, since its first part is
    not below log N."""
    affordable_kl: float | None
    """Below which KL it is below log N, with these samples; None: at none."""
    information_counts: bool
    """Whether more information would lower the bound: not where the least slack has taken its place
    by the empirical loss."""


def limits(terms: Terms) -> Limits:
    """The limits of the valid bound of a run."""
    found = valid_bound(terms)
    room = math.log(terms.num_candidates) - found.warm_start
    scale = loss_range(terms.num_candidates, terms.temperature)

    def complexity(num_samples: int) -> float:
        return valid_bound(dataclasses.replace(terms, num_samples=num_samples)).complexity

    least = valid_bound(dataclasses.replace(terms, kl=0.0)).total
    constant = valid_constant(terms.num_samples, terms.delta)
    kl = 2 * terms.num_samples * (room / scale) ** 2 - constant if room > 0 else -1.0
    return Limits(
        least=least,
        needed_samples=_first(lambda n: complexity(n) < room) if room > 0 else None,
        affordable_kl=kl if kl > 0 else None,
        information_counts=terms.information < math.log(terms.num_candidates)
        and (terms.slack is not None or found.slack == 0),
    )


def paper_sizes() -> list[dict[str, Any]]:
    """The limits at the sizes of the paper's runs in the best case: a training loss of 0, and a
    prior that captures all of log N."""
    file = resources.files("lco_jax.analysis") / "published" / "bound_sizes.json"
    rows = []
    for size in json.loads(file.read_text())["runs"]:
        count = size["num_candidates"]
        terms = Terms(
            num_candidates=count,
            information=math.log(count),
            kl=0.0,
            num_samples=size["num_samples"],
            slack=0.0,
            temperature=size["temperature"],
        )
        rows.append(
            {
                **size,
                "log_n": math.log(count),
                "loss_range": loss_range(count, terms.temperature),
                **dataclasses.asdict(limits(terms)),
            }
        )
    return rows


def _first(holds: Callable[[int], bool]) -> int | None:
    """The smallest number of samples from which on something holds (None: none that is sensible).

    (KL + log(2 sqrt(n) / δ)) / n falls with n, as the logarithm is above 1/2.
    """
    high = 1
    while not holds(high):
        high *= 2
        if high > _MOST_SAMPLES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
