"""Learning-rate schedules, the optimizer, and where its state lies."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lco_jax.config import OptimizerConfig, Towers, Trainable
from lco_jax.models.build import group_of

Lengths = Sequence[tuple[int, int]]
"""What lengths a run had before: until which step, and of how many steps, ascending."""


def make_schedule(config: OptimizerConfig, num_steps: int, earlier: Lengths = ()) -> optax.Schedule:
    """Linear warm-up to the peak, then the decay named by the config, to zero at `num_steps`.

    Args:
        earlier: what it was planned for before; steps that were taken under another plan keep
            their rates, also when they are taken again.

    Raises:
        ValueError: the warm-up is longer than the run.
    """
    plans = [(until, _plan(config, length)) for until, length in earlier]
    latest = _plan(config, num_steps)
    if not plans:
        return latest

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        rate = latest(step)
        for until, plan in reversed(plans):
            rate = jnp.where(step < until, plan(step), rate)
        return rate

    return schedule


def _plan(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    warmup = min(config.warmup_of(num_steps), num_steps - 1)
    rest = num_steps - warmup
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(config.peak_lr, rest),
        "linear": lambda: optax.linear_schedule(config.peak_lr, 0.0, rest),
        "constant": lambda: optax.constant_schedule(config.peak_lr),
    }[config.schedule]()
    if warmup == 0:
        return decay
    # The first step already moves: the rate of step 0 is peak / (warmup + 1), not 0.
    rise = optax.linear_schedule(config.peak_lr / (warmup + 1), config.peak_lr, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, trainable: Trainable | None = None
) -> optax.GradientTransformation:
    """AdamW after clipping by global norm. Weight decay leaves vectors (norms, biases) alone.

    Args:
        schedule: of `make_schedule`.
        trainable: gives the parts of the model their learning rates.
    """
    steps = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    adamw = optax.adamw(
        schedule,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=_decays,
    )
    steps.append(adamw)
    if isinstance(trainable, Towers):
        steps.append(_scale_parts(trainable))
    return steps[0] if len(steps) == 1 else optax.chain(*steps)


def _scale_parts(towers: Towers) -> optax.GradientTransformation:
    """Multiplies the updates of each part: those of AdamW are proportional to the learning rate."""

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        group = group_of([key.key for key in path])
        return update if group == "decoder" else getattr(towers, group) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def init_optimizer(optimizer: optax.GradientTransformation, trainable: Any) -> optax.OptState:
    """The first state, each data shard holding its part (ZeRO stage 1)."""
    return optimizer.init(shard_over_data(trainable))


def update_sharded(
    optimizer: optax.GradientTransformation, gradients: Any, opt_state: optax.OptState, params: Any
) -> tuple[Any, optax.OptState]:
    """Parameters and state after a step, in which each data shard computes its part."""
    own = shard_over_data(params)
    updates, opt_state = optimizer.update(shard_over_data(gradients), opt_state, own)
    # What is gathered is the result itself, which takes the place of the donated parameters.
    new = optax.apply_updates(own, updates)
    specs = jax.tree.map(lambda x: jax.typeof(x).sharding, params)
    return jax.tree.map(jax.reshard, new, specs), opt_state


def shard_over_data(tree: Any) -> Any:
    """Arrays cut over the data axis as well, along the first dimension that it divides.

    An array without such a dimension stays as it is, on every data shard.
    """
    return jax.tree.map(_shard, tree)


def _shard(x: jax.Array) -> jax.Array:
    sharding = jax.typeof(x).sharding
    sizes, spec = sharding.mesh.shape, list(sharding.spec)
    if sizes["data"] == 1:
        return x
    for axis, (length, names) in enumerate(zip(x.shape, spec, strict=True)):
        names = () if names is None else names if isinstance(names, tuple) else (names,)
        names = (*names, "data")
        if length % math.prod(sizes[name] for name in names) == 0:
            spec[axis] = names
            return jax.reshard(x, jax.P(*spec))
    return x


def _decays(params: dict) -> dict:
    return {
        name: _decays(value) if isinstance(value, dict) else name not in ("scale", "bias")
        for name, value in params.items()
    }
