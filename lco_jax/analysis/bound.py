"""Theorem 1 as a calculator: a PAC-Bayes bound on the contrastive loss from generative quality.

With probability 1 - δ over the n training samples, the paper states

    E_Q[L_pop] <= log N - I_P(X;Y) + ε_P + sqrt((KL(Q||P) + log(1/δ)) / (2 n))

with the prior P (the pre-trained model), the posterior Q (after contrastive training), N candidates
in the denominator of InfoNCE, and the information I_P that the prior captures.

That square root holds for losses in [0, 1]. InfoNCE of unit vectors lies in
[0, B], B = log(1 + (N - 1) exp(2 / τ)), so `valid_bound` multiplies the root by B and takes the
constant log(2 sqrt(n) / δ) of the theorem's usual proof. Both assume what no run satisfies exactly:
independent samples (rows of a batch share their candidates), and a loss averaged over Q, where a
run measures it at Q's centre.

Source: LCO-Emb, Theorem 1 and Corollary 1; McAllester (1999), Maurer (2004) for the constants.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float


@dataclass(frozen=True)
class Terms:
    """Everything that the bound depends on; losses and information in nats."""

    num_candidates: int
    """N: twice the batch with one hard negative per anchor, else the batch."""
    information: float
    """I_P(X;Y), see `captured_information`."""
    slack: float
    """ε_P, see `warm_start_slack`."""
    kl: float
    """KL(Q||P), see `lora_kl`."""
    num_samples: int
    """n: different training samples."""
    temperature: float = 0.03
    delta: float = 0.05
    """The bound may fail with this probability."""

    def __post_init__(self):
        for name, fine in (
            ("num_candidates", self.num_candidates >= 2),
            ("slack", self.slack >= 0),
            ("kl", self.kl >= 0),
            ("num_samples", self.num_samples >= 1),
            ("temperature", self.temperature > 0),
            ("delta", 0 < self.delta < 1),
        ):
            if not fine:
                raise ValueError(
                    f"{name}={getattr(self, name)} is impossible; the bound needs N >= 2, "
                    "slack and KL >= 0, n >= 1, temperature > 0 and 0 < delta < 1"
                )
        if not math.isfinite(self.information):
            raise ValueError(f"information={self.information} must be finite")


@dataclass(frozen=True)
class Bound:
    """The parts of a bound; `total` is their sum."""

    warm_start: float
    """log N - I_P, plus the slack."""
    complexity: float
    """The root."""
    clipped: bool
    """Whether the information was outside [0, log N], where InfoNCE can express it."""

    @property
    def total(self) -> float:
        return self.warm_start + self.complexity


@dataclass(frozen=True)
class Run:
    """One run, to compare its bound with the loss it reached."""

    name: str
    terms: Terms
    measured_loss: float
    """InfoNCE on held-out batches of the same N."""


def paper_bound(terms: Terms) -> Bound:
    """The bound as printed: no clipping, and a root for losses in [0, 1]."""
    warm = math.log(terms.num_candidates) - terms.information + terms.slack
    root = _root(terms.kl, math.log(1 / terms.delta), terms.num_samples)
    return Bound(warm, root, clipped=False)


def valid_bound(terms: Terms) -> Bound:
    """The bound with the range of the loss and the usual constant; information is clipped.

    InfoNCE over N candidates can neither certify more than log N nats nor fewer than 0, so an
    estimate outside is moved to the end of that interval.
    """
    information = clip_information(terms.information, terms.num_candidates)
    warm = math.log(terms.num_candidates) - information + terms.slack
    constant = math.log(2 * math.sqrt(terms.num_samples) / terms.delta)
    root = _root(terms.kl, constant, terms.num_samples)
    scale = loss_range(terms.num_candidates, terms.temperature)
    return Bound(warm, scale * root, clipped=information != terms.information)


def loss_range(num_candidates: int, temperature: float) -> float:
    """The largest InfoNCE loss of unit vectors: the positive opposite, all others equal."""
    # log(1 + (N - 1) e^(2/τ)), without the exponential.
    return float(np.logaddexp(0, math.log(num_candidates - 1) + 2 / temperature))


def clip_information(information: float, num_candidates: int) -> float:
    """The information moved into [0, log N]."""
    return min(max(information, 0.0), math.log(num_candidates))


def captured_information(unconditional_loss: float, generative_loss: float) -> float:
    """I_P(X;Y) = H(Y) - L_g(P): how much the input shortens the output's code.

    Args:
        unconditional_loss: mean -log P(y) of the outputs without their inputs, nats per sequence:
            the prior's own estimate of H(Y).
        generative_loss: mean -log P(y given x), nats per sequence.
    """
    return unconditional_loss - generative_loss


def warm_start_slack(empirical_loss: float, information: float, num_candidates: int) -> float:
    """ε_P: the least slack with which the training loss satisfies the warm-start hypothesis.

    Pass the same information, clipped or not, as to the bound.
    """
    return max(0.0, empirical_loss - math.log(num_candidates) + information)


def lora_kl(
    factors: Iterable[tuple[Float[np.ndarray, "L R ..."], Float[np.ndarray, "L R ..."]]],
    scale: float,
    prior_std: float,
) -> float:
    """KL of two Gaussians of width `prior_std` around the base weights and the merged ones.

    The update of a layer is `scale` · A B, so KL = Σ |scale · A B|² / (2 σ²), computed from the
    R x R Gram matrices of the factors. σ must be fixed before training for the bound to hold.

    Args:
        factors: A (L R inputs) and B (L R outputs) of every low-rank branch.
        scale: alpha / rank.

    Raises:
        ValueError: σ is not positive, or a pair of factors has different layers or ranks.
    """
    if prior_std <= 0:
        raise ValueError(f"prior_std={prior_std} must be positive")
    energy = 0.0
    for a, b in factors:
        if a.shape[:2] != b.shape[:2]:
            raise ValueError(f"the factors have shapes {a.shape} and {b.shape}: L R must be equal")
        a, b = (x.reshape(*x.shape[:2], -1).astype(np.float64) for x in (a, b))
        energy += float(np.sum((a @ a.mT) * (b @ b.mT)))
    return scale**2 * energy / (2 * prior_std**2)


def lora_factors(params: dict[str, Any]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pairs A, B of a run's trainable parameters (a nested dictionary)."""
    if "lora_a" in params:
        return [(np.asarray(params["lora_a"]), np.asarray(params["lora_b"]))]
    children = (child for child in params.values() if isinstance(child, dict))
    return [pair for child in children for pair in lora_factors(child)]


def read_runs(path: str) -> list[Run]:
    """Runs of a JSON Lines file with `name`, `measured_loss` and the fields of `Terms`.

    Instead of `information` a line may give `unconditional_loss` and `generative_loss`, and instead
    of `slack` the `empirical_loss` of training.

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
    known = {*values, "name", "measured_loss"}
    if "information" not in values:
        given = float(record["unconditional_loss"]), float(record["generative_loss"])
        values["information"] = captured_information(*given)
        known |= {"unconditional_loss", "generative_loss"}
    if "slack" not in values:
        count = int(record["num_candidates"])
        information = clip_information(values["information"], count)
        values["slack"] = warm_start_slack(float(record["empirical_loss"]), information, count)
        known.add("empirical_loss")
    unknown = sorted(record.keys() - known)
    if unknown:
        raise ValueError(f"has unknown or superfluous fields {unknown}")
    return Run(str(record["name"]), Terms(**values), float(record["measured_loss"]))


def compare(run: Run) -> dict[str, Any]:
    """The bounds of a run beside its loss, as a flat record."""
    paper, valid = paper_bound(run.terms), valid_bound(run.terms)
    return {
        "name": run.name,
        "measured_loss": run.measured_loss,
        "paper": paper.total,
        "valid": valid.total,
        "log_n": math.log(run.terms.num_candidates),
        "warm_start": valid.warm_start,
        "complexity": valid.complexity,
        "clipped": valid.clipped,
        **vars(run.terms),
    }


def _root(kl: float, constant: float, num_samples: int) -> float:
    return math.sqrt((kl + constant) / (2 * num_samples))
