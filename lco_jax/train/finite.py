"""Whether a step was finite: what was not, after which nothing is saved."""

import math
from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, UInt32

from lco_jax.models.build import Params, group_of
from lco_jax.runtime.pieces import Found, look

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
        found.setdefault(_group(path), []).append(jnp.isfinite(x).all())
    return {_WEIGHTS + group: jnp.stack(parts).all() for group, parts in found.items()}


def check_weights(trainable: Params) -> None:
    """Check that all weights that this process holds are finite.

    Raises:
        DivergedError: names the parts of the model that have others.
    """
    leaves = jax.tree_util.tree_leaves_with_path(trainable)
    counts = look(_count_others, [x for _, x in leaves])
    wrong = [path for (path, _), found in zip(leaves, counts, strict=True) if _any(found)]
    if wrong:
        groups = ", ".join(dict.fromkeys(_group(path) for path in wrong))
        raise DivergedError(f"there are weights that are not finite ({groups})")


def _any(found: Iterable[Found]) -> bool:
    return any(one.value for one in found)


def _count_others(x: Array, _: UInt32[Array, "..."]) -> UInt32[Array, ""]:
    return jnp.sum(~jnp.isfinite(x), dtype=jnp.uint32)


def _group(path: tuple) -> str:
    return group_of([key.key for key in path])


def check_finite(step: int, metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics of a step without those of `finite_weights`.

    Raises:
        DivergedError: the loss, the gradient, the learning rate or weights are not finite; it says
            which, and what the others were.
    """
    flags = {name: value for name, value in metrics.items() if name.startswith(_WEIGHTS)}
    numbers = {
        "learning rate": metrics["learning_rate"],
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
