"""Theorem 1 as a calculator: a PAC-Bayes bound on the contrastive loss from generative quality.

With probability 1 - δ over the n training samples, the paper states

    E_Q[L_pop] <= log N - I_P(X;Y) + ε_P + sqrt((KL(Q||P) + log(1/δ)) / (2 n))

with the prior P (the pre-trained model), the posterior Q (after contrastive training), N candidates
in the denominator of InfoNCE, and the information I_P that the prior captures.

That square root holds for losses in [0, 1]. InfoNCE of unit vectors lies in
[0, B], B = log(1 + (N - 1) exp(2 / τ)), so `valid_bound` multiplies the root by B and takes the
constant log(2 sqrt(n) / δ) of the theorem's usual proof. Both assume what no run satisfies exactly:
independent samples (rows of a batch share their candidates), and a loss averaged over Q, where a
run measures it at Q's centre. And P must not depend on the sample: a run whose prior was trained
on the same data has no bound.

With the least slack the first part is max(L_emp, log N - I_P): the bound is never below L_emp plus
the root, which the ordinary PAC-Bayes bound gives without I_P. `bound_limits` says what is left.

Source: LCO-Emb, Theorem 1 and Corollary 1; McAllester (1999), Maurer (2004) for the constants.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Terms:
    """Everything that the bound depends on; losses and information in nats."""

    num_candidates: int
    """N: twice the batch with one hard negative per anchor, else the batch."""
    information: float
    """I_P(X;Y), see `captured_information`."""
    kl: float
    """KL(Q||P), see `lora_kl`."""
    num_samples: int
    """n: different training samples."""
    slack: float | None = None
    """ε_P, if it is assumed; None: each bound takes the least, see `warm_start_slack`."""
    empirical_loss: float | None = None
    """L_emp: InfoNCE on training batches of N candidates, which the least slack follows from."""
    temperature: float = 0.03
    delta: float = 0.05
    """The bound may fail with this probability."""

    def __post_init__(self):
        for name, fine in (
            ("num_candidates", self.num_candidates >= 2),
            ("slack", self.slack is None or self.slack >= 0),
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
        if (self.slack is None) == (self.empirical_loss is None):
            raise ValueError(
                f"slack={self.slack} and empirical_loss={self.empirical_loss}: give the slack that "
                "is assumed, or the empirical loss that the least slack follows from"
            )

    def slack_beside(self, information: float) -> float:
        """ε_P of a bound that takes `information` for I_P."""
        if self.slack is not None:
            return self.slack
        return warm_start_slack(self.empirical_loss, information, self.num_candidates)


@dataclass(frozen=True)
class Bound:
    """The parts of a bound; `total` is their sum."""

    warm_start: float
    """log N - I_P, plus the slack."""
    complexity: float
    """The root."""
    slack: float
    """ε_P beside the information that this bound takes."""
    clipped: bool
    """Whether the information was outside [0, log N], where InfoNCE can express it."""

    @property
    def total(self) -> float:
        return self.warm_start + self.complexity


def paper_bound(terms: Terms) -> Bound:
    """The bound as printed: no clipping, its own least slack, and a root for losses in [0, 1]."""
    slack = terms.slack_beside(terms.information)
    warm = math.log(terms.num_candidates) - terms.information + slack
    root = _root(terms.kl, paper_constant(terms.delta), terms.num_samples)
    return Bound(warm, root, slack, clipped=False)


def valid_bound(terms: Terms) -> Bound:
    """The bound with the range of the loss and the usual constant; information is clipped.

    InfoNCE over N candidates can neither certify more than log N nats nor fewer than 0, so an
    estimate outside is moved to the end of that interval.
    """
    information = clip_information(terms.information, terms.num_candidates)
    slack = terms.slack_beside(information)
    warm = math.log(terms.num_candidates) - information + slack
    root = _root(terms.kl, valid_constant(terms.num_samples, terms.delta), terms.num_samples)
    scale = loss_range(terms.num_candidates, terms.temperature)
    return Bound(warm, scale * root, slack, clipped=information != terms.information)


def paper_constant(delta: float) -> float:
    """What is added to the KL under the printed root."""
    return math.log(1 / delta)


def valid_constant(num_samples: int, delta: float) -> float:
    """What the theorem's usual proof adds to the KL."""
    return math.log(2 * math.sqrt(num_samples) / delta)


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
    """ε_P: the least slack with which the training loss satisfies the warm-start hypothesis, beside
    the information that the bound takes, clipped or not.
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


def _root(kl: float, constant: float, num_samples: int) -> float:
    return math.sqrt((kl + constant) / (2 * num_samples))
