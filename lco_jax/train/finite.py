"""Whether a step was finite: what was not, after which nothing is saved."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from lco_jax.models.build import Params, group_of

_WEIGHTS = "finite_weights/"
"""Before the name of a part of the model, among the metrics of a step."""


class DivergedError(RuntimeError):
    """The loss, the gradient or the weights are no longer finite numbers."""


def finite_weights(trainable: Params) -> dict[str, Bool[Array, ""]]:
    """For each part of the model that trains whether all its weights are finite, by the names that
    `check_finite` knows.
    """
    found: dict[str, list[Bool[Array, ""]]] = {}
    for path, x in jax.tree_util.tree_leaves_with_path(trainable):
        group = group_of([key.key for key in path])
        found.setdefault(group, []).append(jnp.isfinite(x).all())
    return {_WEIGHTS + group: jnp.stack(parts).all() for group, parts in found.items()}


def check_weights(trainable: Params) -> None:
    """Check that all weights are finite; all processes that hold them call it together.

    Raises:
        DivergedError: names the parts of the model that have others.
    """
    found = jax.device_get(jax.jit(finite_weights)(trainable))
    groups = [name.removeprefix(_WEIGHTS) for name, finite in found.items() if not finite]
    if groups:
        raise DivergedError(f"there are weights that are not finite ({', '.join(groups)})")


def check_finite(step: int, metrics: Mapping[str, float], learning_rate: float) -> dict[str, float]:
    """The metrics of a step without those of `finite_weights`.

    Raises:
        DivergedError: the loss, the gradient, the learning rate or weights are not finite; it says
            which, and what the others were.
    """
    flags = {name: value for name, value in metrics.items() if name.startswith(_WEIGHTS)}
    numbers = {
        "learning rate": learning_rate,
        "loss": metrics["loss"],
        "gradient norm": metrics["gradient_norm"],
    }
    wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
    groups = [name.removeprefix(_WEIGHTS) for name, finite in flags.items() if not finite]
    if wrong:
        first = wrong[0]
        what = f"the {first} of step {step} is {numbers.pop(first)}"
    elif groups:
        what = f"step {step} made weights that are not finite ({', '.join(groups)})"
    else:
        return {name: value for name, value in metrics.items() if name not in flags}
    rest = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
    if wrong and groups:
        rest += f"; weights that are not finite: {', '.join(groups)}"
    raise DivergedError(f"{what} ({rest}); nothing of it was saved")
