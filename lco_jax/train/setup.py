"""What a run has before its first step: model, data, state and compiled step."""

import functools
import logging
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from lco_jax.config import TrainConfig
from lco_jax.data.encode.feature_cache import FeatureCache, MediaCache
from lco_jax.data.encode.processor import Processor
from lco_jax.data.loader import Loader
from lco_jax.data.sources.open import all_items
from lco_jax.models.build import init_lora, join, on_mesh
from lco_jax.models.config import ModelConfig, read_config
from lco_jax.models.describe import DescribedModel, describe_model
from lco_jax.objectives.traits import make_loader, traits_of
from lco_jax.runtime import processes
from lco_jax.train.agreement import check_same, check_shared
from lco_jax.train.base import base_run_of, merge_base
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.earlier import earlier_code, earlier_lengths, earlier_on_error
from lco_jax.train.held_out import held_out_of
from lco_jax.train.known_features import fill_cache, open_cache
from lco_jax.train.manifest import (
    base_folder,
    check_same_run,
    is_run_folder,
    read_manifest,
    start_or_resume,
)
from lco_jax.train.optimizer import init_optimizer, make_optimizer, make_schedule
from lco_jax.train.update import Step, TrainState, make_step
from lco_jax.weights.hub import load_params
from lco_jax.weights.identity import base_digest

log = logging.getLogger(__name__)

_INIT = 2**31 - 1
"""Number of the random stream of the initial factors; the streams of steps count from 0."""


@dataclass(frozen=True)
class Inputs:
    """What a run reads: a model, described, and batches."""

    model: DescribedModel
    processor: Processor
    loader: Loader
    num_steps: int
    cache: FeatureCache | None


@dataclass(frozen=True)
class Setup:
    """The parts of a run, on the mesh that is set."""

    model: DescribedModel
    processor: Processor
    loader: Loader
    num_steps: int
    checkpoints: Checkpoints
    state: TrainState
    """Of the last checkpoint, to whose place the loader is set; before the first step if there is
    none."""
    step: Step
    preamble: jax.Array
    """Tokens that all items begin with."""


def open_inputs(
    config: TrainConfig,
    folder: Path,
    sizes: ModelConfig,
    mesh: jax.sharding.Mesh,
    known: MediaCache | None = None,
) -> Inputs:
    """Describe the model of `sizes` and open the data; no weight is read.

    Args:
        folder: the model's hub folder.
        known: media that need not be read (None: those of the run's feature cache).

    Raises:
        ValueError: config, data and model do not fit each other.
    """
    ref, traits = config.model, traits_of(config.objective)
    model = describe_model(ref, sizes, with_head=traits.needs_head)
    cache = None
    processor = Processor(
        folder,
        model.read,
        media=config.data.media,
        profile=config.data.profile,
        max_text_tokens=config.data.max_text_tokens,
        control_tokens=config.data.control_tokens,
        cache=known,
    )
    if known is None and config.memory.feature_cache and model.towers:
        cache = open_cache(config.memory.feature_cache, folder, processor, ref.dtype)
        processor = processor.with_cache(cache)
    loader = make_loader(config, processor, mesh)
    num_steps = config.num_steps or config.num_epochs * loader.steps_per_epoch
    return Inputs(model, processor, loader, num_steps, cache)


def set_up(config: TrainConfig, workdir: str, mesh: jax.sharding.Mesh) -> Setup:
    """Read the base model, open the data, and write the manifest of the run or compare with it.

    Raises:
        ScienceChangedError: `workdir` holds a run with other settings.
        DisagreementError: processes were started with different things, or one cannot go on.
        ValueError: config, data and model do not fit each other.
        CheckpointError: there are checkpoints, but none can be read.
    """
    ref, traits = config.model, traits_of(config.objective)
    with processes.all_or_none("run folder"):
        # Of a run to start from, a copy is made in this folder next: not in that of another run.
        check_same_run(workdir, config, None, places_vary=not is_run_folder(ref.path))
    merge_base(ref, workdir)
    with processes.all_or_none("opening of model and data"):
        folder = base_folder(ref, workdir)
        inputs = open_inputs(config, folder, read_config(folder), mesh)
        base_weights = base_digest(folder, _known_digest(workdir))
        held_out = held_out_of(config.evaluation)
    model, processor, loader = inputs.model, inputs.processor, inputs.loader
    num_steps, cache = inputs.num_steps, inputs.cache
    check_same(config, data=loader.fingerprint, base_weights=base_weights)
    check_shared(workdir)
    with processes.all_or_none("manifest"):
        check_same_run(workdir, config, loader.fingerprint, base_weights, held_out)
        per_epoch = loader.steps_per_epoch
        reached = functools.partial(_steps_taken, workdir, config)
        earlier = earlier_lengths(workdir, config, per_epoch, reached)
        schedule = make_schedule(config.optimizer, num_steps, earlier)
        start_or_resume(
            workdir,
            config,
            data_fingerprint=loader.fingerprint,
            prompt=processor.describe(),
            base_weights=base_weights,
            base_run=base_run_of(folder),
            held_out=held_out,
            earlier=earlier,
            on_error=earlier_on_error(workdir, config, reached),
            code=earlier_code(workdir, reached),
        )
    optimizer = make_optimizer(config.optimizer, schedule, ref.trainable)
    metric = config.evaluation.metric if config.evaluation else None
    checkpoints = Checkpoints(workdir, config.checkpoint, metric)
    restored = checkpoints.restore(state_shapes(model, optimizer))
    if restored is None:
        state = initial_state(config, model, folder, optimizer)
    else:
        state, position = restored
        loader.set_state(position)
        trained = flatten_dict(model.trainable, sep="/")
        state.frozen = load_params(folder, model.config, model.frozen, elsewhere=trained)
        log.info("resumed after step %d", int(state.step))
    log.info(
        "%s trainable of %s parameters on %s",
        f"{_count(state.trainable):,}",
        f"{_count(state.trainable) + _count(state.frozen):,}",
        dict(mesh.shape),
    )
    if cache is not None:
        items = all_items(config.data, traits.record_kind)
        params = join(state.frozen, state.trainable)
        fill_cache(cache, processor, items, model.graph, params, mesh, config.memory)
    return Setup(
        model=model,
        processor=processor,
        loader=loader,
        num_steps=num_steps,
        checkpoints=checkpoints,
        state=state,
        step=make_step(config, model.graph, optimizer, schedule),
        preamble=jnp.asarray(processor.head),
    )


def _known_digest(workdir: str) -> str | None:
    """What the manifest of the run says of its base weights, if there is one."""
    return read_manifest(workdir).base_weights if is_run_folder(workdir) else None


def _steps_taken(workdir: str, config: TrainConfig) -> int:
    """After how many steps a run goes on, by its checkpoints."""
    checkpoints = Checkpoints(workdir, config.checkpoint, writes=False)
    try:
        return max(checkpoints.steps(), default=0)
    finally:
        checkpoints.close()


def state_shapes(model: DescribedModel, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and shardings of what a checkpoint holds; nothing is allocated."""
    opt_state = jax.eval_shape(functools.partial(init_optimizer, optimizer), model.trainable)
    everywhere = jax.NamedSharding(jax.sharding.get_mesh(), jax.P())
    step = jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere)
    return TrainState(step, model.trainable, {}, on_mesh(opt_state))


def initial_state(
    config: TrainConfig,
    model: DescribedModel,
    folder: Path,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """Hub weights (those that train in float32) and fresh low-rank factors."""
    ref = config.model
    wanted = flatten_dict(join(model.trainable, model.frozen))
    trained = flatten_dict(model.trainable).keys()
    key = jax.random.fold_in(jax.random.key(config.seed), _INIT)
    factors = flatten_dict(init_lora(model.config, ref.trainable, ref.dtype, key))
    on_hub = {path: shape for path, shape in wanted.items() if path not in factors}
    values = factors | flatten_dict(load_params(folder, model.config, unflatten_dict(on_hub)))
    trainable = unflatten_dict({path: values[path] for path in trained})
    frozen = unflatten_dict({path: values[path] for path in values.keys() - trained})
    step = jax.device_put(np.int32(0), jax.P())
    opt_state = jax.jit(functools.partial(init_optimizer, optimizer))(trainable)
    return TrainState(step, trainable, frozen, opt_state)


def _count(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))
