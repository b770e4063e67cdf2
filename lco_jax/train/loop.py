"""The training loop: mesh, data, state, restore, steps."""

import functools
import itertools
import logging
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from lco_jax.config import Tower, TrainConfig
from lco_jax.data.processor import Processor
from lco_jax.data.sources import all_items
from lco_jax.models.build import Params, build, init_lora, join
from lco_jax.models.config import ModelConfig, read_config
from lco_jax.models.omni import available_towers
from lco_jax.train import mesh as meshes
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.known_features import fill_cache, open_cache
from lco_jax.train.manifest import base_folder, start_or_resume
from lco_jax.train.metrics import MetricsWriter
from lco_jax.train.objectives import make_loader, make_step, needs_head, record_kind
from lco_jax.train.optimizer import init_optimizer, make_optimizer, make_schedule
from lco_jax.train.profiling import Spending, trace_steps
from lco_jax.train.progress import Reporter, StepProgress
from lco_jax.train.signals import StopSignals
from lco_jax.train.steps import TrainState, batch_specs
from lco_jax.weights.hub import load_params

log = logging.getLogger(__name__)

_INIT = 2**31 - 1
"""Number of the random stream of the initial factors; the streams of steps count from 0."""


@dataclass(frozen=True)
class Snapshot:
    """A model in mid-training, as an evaluation sees it."""

    step: int
    config: ModelConfig
    graph: nnx.GraphDef
    params: Params
    processor: Processor
    mesh: jax.sharding.Mesh


Evaluate = Callable[[Snapshot], dict[str, float]]


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    step: int
    num_steps: int
    metrics: dict[str, float]
    stopped_by: signal.Signals | None
    """The signal after which the run saved and stopped, or None if it is complete."""


def train(config: TrainConfig, workdir: str, *, evaluate: Evaluate | None = None) -> TrainResult:
    """Run one stage, or go on with the one that `workdir` holds.

    Args:
        workdir: run folder, local or `gs://`.
        evaluate: measures a snapshot; called as `config.evaluation` says.

    Raises:
        ScienceChangedError: `workdir` holds a run with other settings.
        DivergedError: the loss became NaN or infinite; the last checkpoint is intact.
        CheckpointError: a checkpoint could not be written or read.
        LostProcessError: another process of the run is gone.
    """
    spending = Spending()
    # ------------------------------------------------------------------------------ mesh
    mesh = meshes.make_mesh(config.mesh)
    main = jax.process_index() == 0
    with jax.set_mesh(mesh), StopSignals() as signals, meshes.lost_processes_named():
        # -------------------------------------------------------------------------- data
        ref = config.model
        folder = base_folder(ref, workdir)
        model_config = read_config(folder).first_layers(config.model.num_layers)
        towers = available_towers(model_config) if ref.towers is None else ref.towers
        cache = None
        if config.memory.feature_cache and towers:
            cache = open_cache(config.memory.feature_cache, folder, config.data.media, ref.dtype)
        processor = Processor(
            folder,
            model_config.with_towers(towers),
            media=config.data.media,
            profile=config.data.profile,
            max_text_tokens=config.data.max_text_tokens,
            cache=cache,
        )
        loader = make_loader(config, processor, mesh)
        num_steps = config.num_steps or config.num_epochs * loader.steps_per_epoch
        start_or_resume(
            workdir, config, data_fingerprint=loader.fingerprint, prompt=processor.describe()
        )

        # ------------------------------------------------------------------------- state
        with_head = needs_head(config.objective)
        graph, _, _ = build(
            model_config, ref.trainable, ref.dtype, towers=towers, with_head=with_head
        )
        optimizer = make_optimizer(config.optimizer, num_steps, ref.trainable)
        state = initial_state(config, model_config, folder, optimizer, towers)
        if cache is not None:
            items = all_items(config.data, record_kind(config.objective))
            params = join(state.frozen, state.trainable)
            fill_cache(cache, processor, items, graph, params, mesh, config.memory)
        step_fn = make_step(config, graph, optimizer)
        schedule = make_schedule(config.optimizer, num_steps)
        prefix = jnp.asarray(processor.head)
        log.info(
            "%s trainable of %s parameters on %s",
            f"{_count(state.trainable):,}",
            f"{_count(state.trainable) + _count(state.frozen):,}",
            dict(mesh.shape),
        )

        # ----------------------------------------------------------------------- restore
        metric = config.evaluation.metric if config.evaluation else None
        checkpoints = Checkpoints(workdir, config.checkpoint, metric)
        restored = checkpoints.restore(state)
        if restored is not None:
            state, position = restored
            loader.set_state(position)
            log.info("resumed after step %d", int(state.step))
        start_step = int(state.step)
        writer = MetricsWriter(
            workdir, start_step=start_step, tensorboard=config.logging.tensorboard
        ) if main else None  # fmt: skip

        def measure(step: int) -> dict[str, float]:
            params = join(state.frozen, state.trainable)
            snapshot = Snapshot(step, model_config, graph, params, processor, mesh)
            with spending.on("evaluation"):
                scalars = evaluate(snapshot)
            if writer:
                writer.write(step, "eval", scalars)
            log.info("after step %d: %s", step, _format(scalars))
            return scalars

        def save(metrics: dict[str, float] | None = None) -> None:
            with spending.on("checkpoint"):
                if writer:
                    writer.flush()  # a run that goes on from here lacks no step
                checkpoints.save(state, data=loader.get_state(), metrics=metrics)

        # ------------------------------------------------------------------------- steps
        evaluated: dict[str, float] = {}
        if evaluate and start_step == 0:
            evaluated = measure(0)
        report = Reporter(config, num_steps, start_step, writer, schedule, step_fn, spending)
        step, stopped_by = start_step, None
        progress = config.logging.progress and main
        batches = itertools.islice(loader, num_steps - start_step)
        batches = trace_steps(batches, config.logging.profile, workdir)
        with StepProgress(num_steps, start_step, enabled=progress) as bar:
            for index, local_batch, stats in batches:
                batch = meshes.to_global(mesh, local_batch, batch_specs(local_batch))
                with jax.transfer_guard("disallow"):
                    state, metrics = step_fn(state, batch, prefix)
                step = index + 1
                report.after(step, metrics, stats, bar)
                stopped_by = signals.received(step)
                last = step == num_steps
                every = config.evaluation.every_steps if config.evaluation else None
                due = evaluate is not None and (last or (every and step % every == 0))
                if due and not stopped_by:
                    report.flush(bar)
                    evaluated = measure(step)
                if last or stopped_by or step % checkpoints.every_steps == 0 or due:
                    report.flush(bar)
                    save(metrics=evaluated if due and not stopped_by else None)
                if stopped_by:
                    break
            report.flush(bar)
        checkpoints.wait()
        checkpoints.close()
        if writer:
            writer.close()
    return TrainResult(step, num_steps, {**report.last, **evaluated}, stopped_by)


def initial_state(
    config: TrainConfig,
    model_config: ModelConfig,
    folder: Path,
    optimizer: optax.GradientTransformation,
    towers: Sequence[Tower] = (),
) -> TrainState:
    """Hub weights (those that train in float32) and fresh low-rank factors."""
    ref = config.model
    _, trainable, frozen = build(
        model_config,
        ref.trainable,
        ref.dtype,
        towers=towers,
        with_head=needs_head(config.objective),
    )
    wanted = flatten_dict(join(trainable, frozen))
    trained = flatten_dict(trainable).keys()
    key = jax.random.fold_in(jax.random.key(config.seed), _INIT)
    factors = flatten_dict(init_lora(model_config, ref.trainable, ref.dtype, key))
    on_hub = {path: shape for path, shape in wanted.items() if path not in factors}
    values = factors | flatten_dict(load_params(folder, model_config, unflatten_dict(on_hub)))
    trainable = unflatten_dict({path: values[path] for path in trained})
    frozen = unflatten_dict({path: values[path] for path in values.keys() - trained})
    step = jax.device_put(np.int32(0), jax.P())
    opt_state = jax.jit(functools.partial(init_optimizer, optimizer))(trainable)
    return TrainState(step, trainable, frozen, opt_state)


def _count(params: Params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def _format(scalars: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in scalars.items())
