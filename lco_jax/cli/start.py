"""The options with which a program joins the other hosts, the same for every program."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is said on every host."""

    tpu: bool = False
    """Join the other hosts of the slice and insist on TPU devices."""
    distributed: bool = False
    """Join the other processes of a GPU or CPU cluster that SLURM, Open MPI or Kubernetes started.
    """
    coordinator: str | None = None
    """Join them without such help: `HOST:PORT` of process 0, the same for all."""
    num_processes: int | None = None
    """With --coordinator: how many processes there are."""
    process_id: int | None = None
    """With --coordinator: the number of this one, from 0."""

    def join(self) -> None:
        """Join the other processes, if there are any.

        Raises:
            ValueError: options that do not fit each other, no TPU, or no cluster.
            JoinError: there are others, and they could not be joined.
        """
        from lco_jax.runtime import start

        place = (self.coordinator, self.num_processes, self.process_id)
        if self.tpu and (self.distributed or any(value is not None for value in place)):
            raise ValueError("--tpu finds the other hosts itself; leave the other options out")
        if all(value is None for value in place):
            if self.tpu:
                start.start_tpu()
            elif self.distributed:
                start.start_cluster()
            else:
                start.refuse_copies()
            return
        if None in place:
            raise ValueError(
                "--coordinator HOST:PORT, --num-processes N and --process-id I belong together; "
                f"got {self.coordinator}, {self.num_processes} and {self.process_id}"
            )
        if not 0 <= self.process_id < self.num_processes:
            raise ValueError(
                f"process_id={self.process_id} is not in 0..{self.num_processes - 1}, the numbers "
                f"of {self.num_processes} processes"
            )
        start.start_cluster(start.Coordinator(*place))
