"""The training state and the compiled step on it."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float, Int

from lco_jax.config import TrainConfig
from lco_jax.data.pack.batch import Batch
from lco_jax.models.build import Params
from lco_jax.nn.linear import tensor_sums
from lco_jax.objectives.traits import GradientFn, traits_of
from lco_jax.runtime.mesh import compile_for_mesh
from lco_jax.train.finite import finite_weights
from lco_jax.train.optimizer import update_sharded


@jax.tree_util.register_dataclass
@dataclass
class TrainState:
    """Everything that a step reads and writes; frozen weights pass through unchanged."""

    step: Int[Array, ""]
    trainable: Params
    frozen: Params
    opt_state: optax.OptState


Step = Callable[..., tuple[TrainState, dict[str, Float[Array, ""]]]]
"""The compiled `(state, batch, preamble) -> (state, metrics)`; the state is donated. Among the
metrics are the learning rate of this step and those of `finite_weights`."""


def make_step(
    config: TrainConfig,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
) -> Step:
    """The compiled step that follows the gradient of a stage's objective.

    Args:
        schedule: that of the optimizer; its rate is among the metrics, so that nobody computes
            it between two steps.
    """
    objective = config.objective
    gradient_fn = traits_of(objective).make_gradient(graph, objective, config.memory)

    def gradient(*args):
        with tensor_sums(config.mesh.tensor_sums):
            return gradient_fn(*args)

    return update_step(gradient, optimizer, schedule, config.seed)


def update_step(
    gradient_fn: GradientFn,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    seed: int,
) -> Step:
    """The compiled step that follows a gradient."""

    def step(state: TrainState, batch: Batch, preamble: Array):
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        trainable, frozen = state.trainable, state.frozen
        (loss, metrics), gradients = gradient_fn(trainable, frozen, key, batch, preamble)
        metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
        metrics["learning_rate"] = jnp.asarray(schedule(state.step), jnp.float32)
        trainable, opt_state = update_sharded(optimizer, gradients, state.opt_state, trainable)
        metrics |= finite_weights(trainable)
        return TrainState(state.step + 1, trainable, frozen, opt_state), metrics

    return compile_for_mesh(step, donate_argnames="state")
