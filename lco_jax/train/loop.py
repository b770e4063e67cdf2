"""The training loop: steps, evaluations, checkpoints."""

import contextlib
import itertools
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
from flax import nnx

from lco_jax.config import TrainConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.specs import batch_specs
from lco_jax.models.build import Params, join
from lco_jax.models.config import ModelConfig
from lco_jax.runtime import mesh as meshes
from lco_jax.runtime import processes
from lco_jax.runtime.locks import only_writer
from lco_jax.runtime.profiling import Spending, trace_steps
from lco_jax.runtime.signals import StopSignals
from lco_jax.train.checkpoint import CheckpointError
from lco_jax.train.finite import DivergedError
from lco_jax.train.metrics import MetricsWriter
from lco_jax.train.progress import Reporter, StepProgress
from lco_jax.train.setup import Setup, set_up

log = logging.getLogger(__name__)


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
    best: tuple[int, float | None] | None = None
    """Of a complete run: the step of its best evaluated checkpoint (where none was evaluated, of
    the last), and the figure of that."""


def train(config: TrainConfig, workdir: str, *, evaluate: Evaluate | None = None) -> TrainResult:
    """Run one stage, or go on with the one that `workdir` holds.

    Args:
        workdir: run folder, local or `gs://`.
        evaluate: measures a snapshot; called as `config.evaluation` says.

    Raises:
        ScienceChangedError: `workdir` holds a run with other settings.
        DivergedError: the loss, the gradient or weights became NaN or infinite; the last checkpoint
            is intact.
        DiskError: a disk is full or fails, other than in a checkpoint.
        CheckpointError: a checkpoint could not be written or read.
        LostProcessError: another process of the run is gone.
        LockedError: a process of another start writes to `workdir`.
    """
    spending = Spending()
    mesh = meshes.make_mesh(config.mesh)
    with (
        jax.set_mesh(mesh),
        processes.lost_processes_named(),
        only_writer(workdir),
        StopSignals() as signals,
    ):
        setup = set_up(config, workdir, mesh)
        run = _Run(config, workdir, setup, mesh, evaluate, spending)
        with run.saves_completed():
            stopped_by = run.go(signals)
            best = run.best() if stopped_by is None else None
        run.close()
    return TrainResult(run.step, setup.num_steps, run.metrics, stopped_by, best)


class _Run:
    """A run from its last checkpoint on."""

    def __init__(
        self,
        config: TrainConfig,
        workdir: str,
        setup: Setup,
        mesh: jax.sharding.Mesh,
        evaluate: Evaluate | None,
        spending: Spending,
    ):
        self._config, self._workdir, self._setup, self._mesh = config, workdir, setup, mesh
        self._evaluate, self._spending = evaluate, spending
        self._every = config.evaluation.every_steps if config.evaluation else None
        self._checkpoints, self._state = setup.checkpoints, setup.state
        self.step = int(self._state.step)
        self._is_main = jax.process_index() == 0
        self._writer = None
        if self._is_main:
            board = config.logging.tensorboard
            self._writer = MetricsWriter(workdir, start_step=self.step, tensorboard=board)
        self._report = Reporter(
            config,
            setup.num_steps,
            self.step,
            self._writer,
            setup.step,
            spending,
        )
        self._evaluated: dict[str, float] = {}

    def go(self, signals: StopSignals) -> signal.Signals | None:
        """Take all steps that are left, or stop after the one that a signal interrupts."""
        setup, start = self._setup, self.step
        if self._lacks_evaluation():
            self._measure()
        progress = self._config.logging.progress and self._is_main
        batches = itertools.islice(setup.loader, setup.num_steps - start)
        batches = trace_steps(batches, self._config.logging.profile, self._workdir)
        with StepProgress(setup.num_steps, start, enabled=progress) as bar:
            for index, local_batch, stats in batches:
                batch = processes.to_global(self._mesh, local_batch, batch_specs(local_batch))
                with jax.transfer_guard("disallow"):
                    self._state, metrics = setup.step(self._state, batch, setup.preamble)
                self.step = index + 1
                self._report.after(self.step, metrics, stats, bar)
                stopped_by = signals.received(self.step)
                self._pause(bar, stopped=stopped_by is not None)
                if stopped_by:
                    return stopped_by
            self._report.flush(bar)
        return None

    @contextlib.contextmanager
    def saves_completed(self) -> Iterator[None]:
        """A context whose errors wait for the save in progress: the end of the process would drop
        it. To one of diverging it adds where to go on from.
        """
        try:
            yield
        except Exception as error:
            # Where another process is lost, nothing that is saved together can be completed.
            if not isinstance(error, CheckpointError) and not processes.is_lost(error):
                self._complete_save()
            if isinstance(error, DivergedError):
                raise DivergedError(f"{error}; {self._way_on()}") from error
            raise

    def _complete_save(self) -> None:
        try:
            self._checkpoints.wait()
        except CheckpointError as error:
            log.error("%s", error)

    def _way_on(self) -> str:
        """What to do after a run has diverged."""
        steps = self._checkpoints.steps()
        if not steps:
            return (
                "there is no checkpoint before it; train again with a lower optimizer.peak_lr in "
                "another --workdir"
            )
        return (
            f"the checkpoint of step {steps[-1]} is intact, and the same command goes on from it. "
            "If that ends here, too, train on from its weights with a lower optimizer.peak_lr: "
            f"model.path={self._workdir} in another --workdir"
        )

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last step and the last evaluation."""
        return {**self._report.last, **self._evaluated}

    def best(self) -> tuple[int, float | None]:
        """The step of the checkpoint that embeds, and its figure if it was evaluated."""
        self._checkpoints.wait()
        step = self._checkpoints.best()
        return step, self._checkpoints.measured(step)

    def close(self) -> None:
        """Wait for the last save and release files and threads."""
        self._checkpoints.wait()
        self._checkpoints.close()
        if self._writer:
            self._writer.close()

    def _pause(self, bar: StepProgress, *, stopped: bool) -> None:
        """Save and evaluate where the config, the end or a signal asks for it."""
        last, due = self.step == self._setup.num_steps, self._is_due()
        save = due or last or stopped or self.step % self._checkpoints.every_steps == 0
        if not save:
            return
        self._report.flush(bar)
        self._save()
        if due and not stopped:
            self._measure()

    def _is_due(self) -> bool:
        last = self.step == self._setup.num_steps
        every = last or self.step == 0 or bool(self._every and self.step % self._every == 0)
        return self._evaluate is not None and every

    def _lacks_evaluation(self) -> bool:
        """Whether the model that the run starts or goes on from should have been evaluated: a
        signal, or the end of the process, may have come before.
        """
        lacks = self._is_due() and not self._checkpoints.is_measured(self.step)
        return bool(processes.agree_max("evaluation to make up", (int(lacks),))[0])

    def _measure(self) -> None:
        with self._spending.on("checkpoint"):
            self._checkpoints.wait()  # whatever happens in an evaluation, no step is lost
        params = join(self._state.frozen, self._state.trainable)
        model = self._setup.model
        snapshot = Snapshot(
            self.step, model.config, model.graph, params, self._setup.processor, self._mesh
        )
        with self._spending.on("evaluation"):
            self._evaluated = self._evaluate(snapshot)
        if self._writer:
            self._writer.write(self.step, "eval", self._evaluated)
            self._writer.flush()
        self._checkpoints.note_evaluation(self.step, self._evaluated)
        text = ", ".join(f"{name} {value:.3f}" for name, value in self._evaluated.items())
        log.info("after step %d: %s", self.step, text)

    def _save(self) -> None:
        with self._spending.on("checkpoint"):
            if self._writer:
                self._writer.flush()  # a run that goes on from here lacks no step
            self._checkpoints.save(self._state, data=self._setup.loader.get_state())
