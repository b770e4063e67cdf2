"""Run folders with random trained weights, written without training."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lco_jax.config import (
    CheckpointConfig,
    DataConfig,
    Full,
    JsonlSource,
    Lora,
    MediaConfig,
    MeshConfig,
    ModelRef,
    ProfileName,
    TrainConfig,
)
from lco_jax.models.build import Params, build
from lco_jax.models.config import read_config
from lco_jax.runtime.mesh import make_mesh
from lco_jax.train.checkpoint import Checkpoints
from lco_jax.train.manifest import start_or_resume
from lco_jax.train.optimizer import make_optimizer, make_schedule
from lco_jax.train.update import TrainState
from lco_jax.weights.hub import load_params

STEP = 3
LORA = Lora(rank=4, alpha=6.0)


def write(
    folder: Path,
    base: Path,
    *,
    trainable: Lora | Full = LORA,
    num_layers: int | None = None,
    max_text_tokens: int = 60,
    media: MediaConfig | None = None,
    profile: ProfileName = "lco",
) -> Path:
    """A run on `base` with one checkpoint, whose weights are far from the base's."""
    data = DataConfig(
        (JsonlSource("unread.jsonl"),),
        max_text_tokens=max_text_tokens,
        media=media or MediaConfig(),
        profile=profile,
    )
    config = TrainConfig(
        model=ModelRef(str(base), trainable=trainable, dtype="float32", num_layers=num_layers),
        data=data,
        num_steps=STEP,
    )
    with jax.set_mesh(make_mesh(MeshConfig())):
        sizes = read_config(base).first_layers(num_layers)
        _, shapes, _ = build(sizes, trainable, "float32")
        center = load_params(base, sizes, shapes) if trainable == Full() else shapes
        state = TrainState(
            step=jax.device_put(np.int32(STEP), jax.P()),
            trainable=_around(center),
            frozen={},
            opt_state=None,
        )
        optimizer = make_optimizer(config.optimizer, make_schedule(config.optimizer, 100))
        state.opt_state = jax.jit(optimizer.init)(state.trainable)
        start_or_resume(str(folder), config, data_fingerprint="none", prompt={})
        checkpoints = Checkpoints(str(folder), CheckpointConfig())
        checkpoints.save(state, data={})
        checkpoints.wait()
        checkpoints.close()
    return folder


def _around(center: Params) -> Params:
    """Random values around those that are given, or around 0 where only shapes are."""
    rng = np.random.default_rng(1)

    def draw(x: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
        noise = 0.2 * rng.standard_normal(x.shape, np.float32)
        if isinstance(x, jax.Array):
            noise = 0.1 * noise + np.asarray(x)
        return jax.device_put(jnp.asarray(noise), x.sharding)

    return jax.tree.map(draw, center)
