"""Checkpoints of what a run cannot recompute: trained weights, optimizer, data position."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.futures.synchronization import OperationIdGenerator

from lco_jax.config import CheckpointConfig
from lco_jax.models.build import Params
from lco_jax.runtime import processes
from lco_jax.runtime.disks import is_of_disk, room
from lco_jax.train import transient
from lco_jax.train.checksums import DamagedError, check_values, checksums_of, sealed, unsealed
from lco_jax.train.finite import DivergedError, check_weights
from lco_jax.train.metrics import read_evaluations
from lco_jax.train.update import TrainState

log = logging.getLogger(__name__)

_STATE = "state"
_OLDER = frozenset({"data"})
"""What metadata of earlier revisions hold, which made no checksums."""


class CheckpointError(RuntimeError):
    """A checkpoint could not be written or read; the message names it and the remedy."""


class Checkpoints:
    """The checkpoints of one run folder, saved in the background.

    A checkpoint appears under its step only when it is complete, so a killed process or a full
    disk leaves the earlier ones as they were. Frozen weights are not in it: they never change.
    Evaluations come after their checkpoint; which were made is read from the run's metrics.

    Args:
        best_metric: of evaluations; the higher the better.
        writes: whether this is the run itself; who only reads leaves unfinished saves alone.
    """

    def __init__(
        self,
        workdir: str,
        config: CheckpointConfig,
        best_metric: str | None = None,
        *,
        writes: bool = True,
    ):
        self.folder = epath.Path(workdir) / "checkpoints"
        if "://" not in workdir:  # what `resolve` makes of a bucket is a local folder
            self.folder = self.folder.resolve()  # orbax wants it absolute
        self.every_steps = config.every_steps
        self._best_metric = best_metric
        self._damaged: set[int] = set()
        self._num_bytes: int | None = None
        self._checkpointer = ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.SpecificStepsPolicy([]),
            preservation_policy=_LastAndBest(config, self._rank, self._damaged),
            cleanup_tmp_directories=writes,
        )
        # Earlier revisions kept the metrics with the checkpoints.
        kept = {one.step: one.metrics or {} for one in self._checkpointer.checkpoints}
        found = kept | read_evaluations(workdir)
        self._measured = {
            step: metrics[best_metric] for step, metrics in found.items() if best_metric in metrics
        }

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def state_folder(self, step: int) -> epath.Path:
        """Where the state after `step` steps is."""
        return self.folder / str(step) / _STATE

    def best(self) -> int | None:
        """The step with the best evaluation, or the last step where none was evaluated; None where
        there is no checkpoint. Processes that ask together are told what process 0 sees.
        """
        steps = self.steps()
        ranked = self._rank(steps) or steps
        found = processes.gather("best checkpoint", str(ranked[-1]) if ranked else "")[0]
        return int(found) if found else None

    def measured(self, step: int) -> float | None:
        """The best metric of the model after `step` steps (None: it was not evaluated)."""
        return self._measured.get(step)

    def is_measured(self, step: int) -> bool:
        """Whether the model after `step` steps was evaluated."""
        return step in self._measured

    def note_evaluation(self, step: int, metrics: dict[str, float]) -> None:
        """Take an evaluation into account when checkpoints are deleted."""
        if self._best_metric in metrics:
            self._measured[step] = metrics[self._best_metric]

    def _rank(self, steps: Sequence[int]) -> list[int]:
        """Those of the steps that were evaluated, the best last."""
        measured = [step for step in steps if step in self._measured]
        return sorted(measured, key=lambda step: (self._measured[step], step))

    def save(self, state: TrainState, *, data: dict[str, Any]) -> None:
        """Save the state after `state.step` steps and the position of the data, with checksums.

        Raises:
            CheckpointError: this or the previous save failed, e.g. because the disk is full.
        """
        step = int(state.step)
        saved = {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}
        self._damaged.discard(step)
        checksums = checksums_of(saved)
        about = sealed({"data": data, "checksums": checksums.by_path})
        self._num_bytes = sum(x.nbytes for x in jax.tree.leaves(saved))
        context = ocp.Context()
        # Who holds a copy saves a part of it, unless the copies differ, as computed on GPUs.
        context.array.saving.use_replica_parallel = checksums.one_copy
        try:
            with context:
                self._checkpointer.save_checkpointables_async(
                    step,
                    {_STATE: saved},
                    force=True,
                    overwrite=step in self.steps(),
                    custom_metadata=about,
                )
        except Exception as error:
            raise self._failed(error) from error

    def wait(self) -> None:
        """Return when the last save is complete.

        Raises:
            CheckpointError: it failed.
        """
        try:
            self._checkpointer.wait()
        except Exception as error:
            raise self._failed(error) from error

    def restore(
        self, state: TrainState, step: int | None = None
    ) -> tuple[TrainState, dict[str, Any]] | None:
        """The latest readable checkpoint (or that of `step`) and its data position.

        `state` gives shapes, dtypes and the shardings of the mesh to restore onto; shapes alone
        will do, so that no second state is in memory. Its frozen weights are passed on. A
        checkpoint that is damaged, on any process, is reported and all use the one before it. None
        if there is no checkpoint.

        Raises:
            CheckpointError: there are checkpoints, but none can be read.
        """
        target = {"step": state.step, "trainable": state.trainable, "opt_state": state.opt_state}
        found = self._restore(target, self.steps() if step is None else [step])
        if found is None:
            return None
        loaded, position = found
        return dataclasses.replace(state, **loaded), position

    def restore_trained(self, trainable: Params, step: int) -> Params:
        """The trained weights of a checkpoint alone, in the shapes of `trainable`.

        Raises:
            CheckpointError: it cannot be read.
        """
        loaded, _ = self._restore({"trainable": trainable}, [step])
        return loaded["trainable"]

    def _restore(
        self, target: dict[str, Any], candidates: Sequence[int]
    ) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """What `target` names, of the last of the candidates that all processes can read."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target
        )
        for candidate in reversed(candidates):
            found, reason = self._try_load(candidate, abstract)
            # All go on from the same checkpoint: what one cannot read, none uses. What is wrong
            # with the values is found together.
            if not _any_process(candidate, found is None):
                reason = _damage(*found)
                if not _any_process(candidate, bool(reason)):
                    loaded, about = found
                    return loaded, about["data"]
            del found  # before the next one is read
            self._damaged.add(candidate)
            earlier = [self.folder / str(other) for other in candidates if other < candidate]
            log.warning(
                "checkpoint %s is not readable (%s); %s",
                self.folder / str(candidate),
                reason or "another process says",
                f"going back to {earlier[-1]}" if earlier else "there is none before it",
            )
        if candidates:
            raise CheckpointError(
                f"none of the checkpoints {list(candidates)} in {self.folder} can be read (reasons "
                "above); remove the damaged ones or choose a new --workdir"
            )
        return None

    def _try_load(
        self, step: int, abstract: dict[str, Any]
    ) -> tuple[tuple[dict[str, Any], dict[str, Any]] | None, str]:
        """This process's part of a checkpoint and what was saved about it, or why not."""
        own = jax.process_index()
        context = ocp.Context()
        # By each process alone, without the barriers of orbax: where one fails, others would wait.
        alone = context.multiprocessing
        alone.primary_host, alone.active_processes = own, {own}
        alone.barrier_sync_key_prefix = f"process_{own}"
        # What `abstract` does not name is not read.
        context.pytree.loading.partial_load = "opt_state" not in abstract
        folder = self.folder / str(step)

        def load() -> tuple[dict[str, Any], dict[str, Any]]:
            with context:
                loaded = ocp.load_checkpointables(folder, {_STATE: abstract})
                metadata = ocp.checkpointables_metadata(folder).custom_metadata
            return loaded[_STATE], unsealed(metadata, _OLDER)

        try:
            return transient.try_again(load, f"checkpoint {folder}"), ""
        except Exception as error:  # orbax and tensorstore raise many kinds
            return None, _brief(error)

    def close(self) -> None:
        """Finish and release the background threads."""
        self._checkpointer.close()

    def _failed(self, error: Exception) -> CheckpointError:
        reason = _brief(error)
        if is_of_disk(error):
            reason = room(error, self.folder, self._num_bytes)
        steps = [step for step in self.steps() if step not in self._damaged]
        kept = "there is no earlier one"
        if steps:
            kept = f"that of step {steps[-1]} is intact, and the same command goes on from it"
        return CheckpointError(f"cannot save a checkpoint in {self.folder}: {reason}; {kept}")


def _damage(loaded: dict[str, Any], about: dict[str, Any]) -> str:
    """What is wrong with the values of a checkpoint ("": nothing)."""
    try:
        if "checksums" in about:
            check_values(loaded, about["checksums"])
        check_weights(loaded["trainable"])
    except (DamagedError, DivergedError) as error:
        return str(error)
    return ""


class _LastAndBest:
    """Which checkpoints stay: the last ones, and those with the best evaluations. A checkpoint is
    the last until its evaluation is done. Damaged ones are not counted, and stay until the run
    comes to their step again.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        rank: Callable[[Sequence[int]], list[int]],
        damaged: set[int],
    ):
        self._num_last, self._num_best = max(config.keep_last, 1), config.keep_best
        self._rank, self._damaged = rank, damaged

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """For each checkpoint, in ascending order of steps; `orbax` calls it before each save."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        good = [step for step in steps if step not in self._damaged]
        ranked = self._rank(good)
        kept = {*good[-self._num_last :], *ranked[max(len(ranked) - self._num_best, 0) :]}
        return [step in kept | self._damaged for step in steps]


def _any_process(step: int, failed: bool) -> bool:
    """Whether one of the processes failed to read the checkpoint of a step."""
    operation = int(OperationIdGenerator.get_current_operation_id())
    anywhere, furthest = processes.agree_max(f"checkpoint {step}", (int(failed), operation))
    # orbax numbers its operations, and processes meet by number; where one failed, it lags.
    while int(OperationIdGenerator.get_current_operation_id()) < furthest:
        OperationIdGenerator.next_operation_id()
    return bool(anywhere)


def _brief(error: Exception) -> str:
    """The first line of an error: orbax puts whole trees into the rest."""
    first = next(iter(str(error).splitlines()), type(error).__name__)
    return first if len(first) <= 300 else f"{first[:300]} …"
