"""Small runs that tests share: data, config, and single steps on a given mesh."""

import dataclasses
import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from lco_jax.config import (
    DataConfig,
    JsonlSource,
    LoggingConfig,
    Lora,
    Memory,
    MeshConfig,
    ModelRef,
    OptimizerConfig,
    TrainConfig,
)
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.specs import batch_specs
from lco_jax.models.config import read_config
from lco_jax.models.describe import describe_model
from lco_jax.objectives.traits import make_loader, traits_of
from lco_jax.runtime import processes
from lco_jax.train.optimizer import make_optimizer, make_schedule
from lco_jax.train.setup import initial_state
from lco_jax.train.update import TrainState, make_step
from tests.data.audio_files import plain, tones
from tests.data.media_files import random_image

WORDS = ("a", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "market", "busy")


def write_triplets(path: Path, count: int = 64, seed: int = 0) -> Path:
    """Triplets of random words; a positive shares words with its anchor."""
    rng = np.random.default_rng(seed)

    def phrase(words):
        return {"text": " ".join(rng.permutation(words)), "image_path": ""}

    lines = []
    for _ in range(count):
        chosen = rng.choice(WORDS, rng.integers(2, 12))
        others = rng.choice(WORDS, rng.integers(2, 12))
        triplet = {"anchor": phrase(chosen), "positive": phrase(chosen), "negative": phrase(others)}
        lines.append(json.dumps(triplet))
    path.write_text("\n".join(lines) + "\n")
    return path


def write_media_triplets(
    path: Path, count: int = 48, seed: int = 0, *, with_sounds: bool = False
) -> Path:
    """Triplets of which a third have pictures, in any role, and a fifth sounds."""
    rng = np.random.default_rng(seed)
    write_triplets(path, count, seed)
    triplets = [json.loads(line) for line in path.read_text().splitlines()]
    for number in range(6):
        side = rng.integers(20, 120, 2).tolist()
        random_image(number, tuple(side)).save(path.parent / f"{number}.png")
    for triplet in triplets[::3]:
        role = ("anchor", "positive", "negative")[rng.integers(3)]
        names = [f"{number}.png" for number in rng.integers(0, 6, rng.integers(1, 3))]
        triplet[role] = {"text": triplet[role]["text"] * rng.integers(2), "image_path": names}
    for number, triplet in enumerate(triplets[::5] if with_sounds else ()):
        name = f"{number}.wav"
        (path.parent / name).write_bytes(plain(tones(float(rng.uniform(0.1, 4.5)), seed=number)))
        triplet["positive"] = {"audio_path": name}
    path.write_text("\n".join(map(json.dumps, triplets)) + "\n")
    return path


def write_exchanges(path: Path, count: int = 48, seed: int = 0) -> Path:
    """Prompts with responses: some show a picture, some are plain text."""
    rng = np.random.default_rng(seed)

    def words():
        return " ".join(rng.choice(WORDS, rng.integers(2, 12)))

    for number in range(6):
        side = rng.integers(20, 120, 2).tolist()
        random_image(number, tuple(side)).save(path.parent / f"{number}.png")
    lines: list[dict | str] = []
    for number in range(count):
        if number % 4 == 0:
            lines.append(words())
            continue
        names = [f"{name}.png" for name in rng.integers(0, 6, rng.integers(1, 3))]
        prompt = {"text": words(), "image_path": names if number % 4 == 1 else ""}
        lines.append({"prompt": prompt, "response": words()})
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


def make_config(folder: Path, triplets: Path, **changes) -> TrainConfig:
    """A run of a tiny checkpoint that takes seconds."""
    num_steps = changes.pop("num_steps", 6)
    config = TrainConfig(
        model=ModelRef(str(folder), trainable=Lora(rank=4, alpha=8), dtype="float32"),
        data=DataConfig(sources=(JsonlSource(str(triplets)),), batch_size=16),
        optimizer=OptimizerConfig(peak_lr=1e-2, warmup_steps=min(2, num_steps)),
        num_steps=num_steps,
        mesh=MeshConfig(data=1),
        memory=Memory(row_tokens=(64, 128)),
        logging=LoggingConfig(progress=False, tensorboard=False),
    )
    return dataclasses.replace(config, **changes)


def run_steps(config: TrainConfig, mesh: jax.sharding.Mesh, count: int = 2) -> list[dict]:
    """The metrics of the first steps on `mesh`, and the shapes of their batches."""
    with jax.set_mesh(mesh):
        state, step, batches = _prepare(config, mesh)
        results = []
        for batch, stats in itertools.islice(batches, count):
            state, metrics = step(state, batch)
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            results.append({**values, "shape": tuple(stats.shape)})
        return results


def frozen_before_and_after(config: TrainConfig, mesh: jax.sharding.Mesh) -> tuple[dict, dict]:
    """The frozen weights before and after two steps."""
    before, after = state_before_and_after(config, mesh)
    return before.frozen, after.frozen


def state_before_and_after(
    config: TrainConfig, mesh: jax.sharding.Mesh, count: int = 2
) -> tuple[TrainState, TrainState]:
    """The state, on the host, before and after some steps."""
    with jax.set_mesh(mesh):
        state, step, batches = _prepare(config, mesh)
        before = jax.tree.map(np.array, state)
        for batch, _ in itertools.islice(batches, count):
            state, _ = step(state, batch)
        return before, jax.tree.map(np.array, state)


def _prepare(config: TrainConfig, mesh: jax.sharding.Mesh):
    folder = Path(config.model.path)
    needs_head = traits_of(config.objective).needs_head
    model = describe_model(config.model, read_config(folder), with_head=needs_head)
    processor = Processor(folder, model.config, media=config.data.media)
    loader = make_loader(config, processor, mesh)
    schedule = make_schedule(config.optimizer, config.num_steps)
    optimizer = make_optimizer(config.optimizer, schedule, config.model.trainable)
    state = initial_state(config, model, folder, optimizer)
    # B is zero at first: random factors give every gradient something to say.
    state.trainable = jax.tree.map(lambda x: x + 0.05 * _noise(x), state.trainable)
    step = make_step(config, model.graph, optimizer, schedule)
    preamble = jnp.asarray(processor.head)
    batches = (
        (processes.to_global(mesh, batch, batch_specs(batch)), stats) for _, batch, stats in loader
    )
    return state, lambda state, batch: step(state, batch, preamble), batches


def _noise(x: jax.Array) -> jax.Array:
    noise = np.random.default_rng(x.size).normal(size=x.shape).astype(np.float32)
    return jax.make_array_from_callback(x.shape, x.sharding, lambda index: noise[index])
