"""Learning-rate schedules and the optimizer."""

import jax
import optax

from lco_jax.config import OptimizerConfig, Towers, Trainable
from lco_jax.models.build import group_of


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Linear warm-up to the peak, then the decay named by the config, to zero at `num_steps`."""
    warmup = min(config.warmup_steps, num_steps - 1)
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
    config: OptimizerConfig, num_steps: int, trainable: Trainable | None = None
) -> optax.GradientTransformation:
    """AdamW after clipping by global norm. Weight decay leaves vectors (norms, biases) alone.

    The parts of the model have the learning rates that `trainable` gives them.
    """
    steps = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    adamw = optax.adamw(
        make_schedule(config, num_steps),
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


def _decays(params: dict) -> dict:
    return {
        name: _decays(value) if isinstance(value, dict) else name not in ("scale", "bias")
        for name, value in params.items()
    }
