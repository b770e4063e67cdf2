"""How a program joins the other processes of its cluster, or finds that it is alone."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

import jax
from jax._src import hardware_utils, xla_bridge
from jax._src.clusters import ClusterEnv

log = logging.getLogger(__name__)


class NoTpuError(ValueError):
    """`--tpu` was asked for on a machine without TPU devices."""


class NoClusterError(ValueError):
    """Nothing says which processes belong together."""


class NotTogetherError(ValueError):
    """Several processes were started for what one does alone."""


class JoinError(RuntimeError):
    """There are other processes, and they could not be joined."""


@dataclass(frozen=True)
class Coordinator:
    """Where the processes of a cluster meet, for those that cannot find out."""

    address: str
    """`HOST:PORT` of process 0."""
    num_processes: int
    process_id: int


def start_tpu() -> None:
    """Join the other hosts of the slices and insist on TPU devices.

    Raises:
        NoTpuError: JAX finds no TPU; the message says what it found.
        JoinError: there are other hosts, and they could not be joined.
    """
    expected, source = _announced()
    try:
        jax.distributed.initialize()
    except Exception as error:  # of JAX, of requests, of the environment's variables
        expected, source = (expected, source) if expected > 1 else _found_by_jax(error)
        if expected > 1:
            raise _not_joined(expected, source, error) from error
        log.info("no other host: %s", error)
    try:
        platform, devices = jax.default_backend(), jax.devices()
    except RuntimeError as error:
        raise NoTpuError(f"JAX cannot start a TPU backend: {error}") from error
    if platform != "tpu":
        kinds = sorted({device.device_kind for device in devices})
        raise NoTpuError(
            f"--tpu needs TPU devices, but JAX {jax.__version__} found {len(devices)} {platform} "
            f"device(s) ({', '.join(kinds)}). On a TPU VM install the extra: "
            "pip install -e '.[tpu]'; elsewhere leave --tpu out."
        )
    _check_number(expected, source)


def start_cluster(coordinator: Coordinator | None = None) -> None:
    """Join the other processes of a cluster of GPUs or CPUs.

    Without a coordinator they are those that SLURM, Open MPI or Kubernetes has started.

    Raises:
        NoClusterError: there is neither a coordinator nor one of these.
        JoinError: the others could not be joined.
    """
    if coordinator is not None:
        expected, source = coordinator.num_processes, "--num-processes"
        found = (coordinator.address, expected, coordinator.process_id)
    else:
        expected, source = _announced()
        if not any(_present_clusters()) and "JAX_COORDINATOR_ADDRESS" not in os.environ:
            raise NoClusterError(
                "--distributed finds no cluster: this process was not started by SLURM (srun), "
                "Open MPI or Kubernetes. Start it with one of them, or say where the processes "
                "meet: --coordinator HOST:PORT --num-processes N --process-id I"
            )
        found = (None, None, None)
    skip_absent_tpu()
    try:
        jax.distributed.initialize(*found)
    except Exception as error:
        raise _not_joined(expected, source, error) from error
    _check_number(expected, source)


def skip_absent_tpu() -> None:
    """Keep JAX from starting libtpu on a machine that has no TPU, where it is installed for plans:
    it would take a second, a lock that keeps other programs out, and alarming lines.

    Nothing changes if the machine may have one, if platforms are named (`JAX_PLATFORMS`), or if JAX
    has started already. JAX has only a private way to leave a platform out and keep the others.
    """
    chips, _ = hardware_utils.num_available_tpu_chips_and_device_id()
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    if not (chips or devices or jax.config.jax_platforms):
        # Lowering rules still need to know the platform, so that it stays registered.
        xla_bridge.register_backend_factory("tpu", lambda: None, fail_quietly=True)


def use_cpu() -> None:
    """Keep JAX to the CPU, where it has not started, and leave accelerators to another library."""
    jax.config.update("jax_platforms", "cpu")


def refuse_copies() -> None:
    """Check that this process, which joins no others, was not started as one of several.

    Raises:
        NoClusterError: it was: each would be a run of its own in the same folder.
    """
    skip_absent_tpu()
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"):
        if _number(name) > 1:
            raise NoClusterError(
                f"this is one of {_number(name)} processes ({name}), each of which would do "
                "everything alone; add --distributed, or start a single one"
            )


def refuse_several(what: str) -> None:
    """Check that this process is the only one, for what several cannot do together.

    Raises:
        NotTogetherError: it is not.
    """
    if jax.process_count() > 1:
        raise NotTogetherError(
            f"{what} is for one process, and {jax.process_count()} were joined; start it on one "
            "host"
        )


_WORKERS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


def _announced() -> tuple[int, str]:
    """How many processes the environment speaks of, and the variable that does."""
    workers = next((os.environ[name] for name in _WORKERS if name in os.environ), "")
    hosts, slices = len(workers.split(",")), _number("MEGASCALE_NUM_SLICES")
    if "MEGASCALE_COORDINATOR_ADDRESS" in os.environ and "MEGASCALE_NUM_SLICES" not in os.environ:
        slices = 2  # at least: it is set where slices are joined
    found = {
        "TPU_WORKER_HOSTNAMES": hosts,
        "MEGASCALE_NUM_SLICES": slices * hosts if slices > 1 else 1,
        "SLURM_NTASKS": _number("SLURM_NTASKS") if "SLURM_PROCID" in os.environ else 1,
        "OMPI_COMM_WORLD_SIZE": _number("OMPI_COMM_WORLD_SIZE"),
        "JAX_COORDINATOR_ADDRESS": 2 if "JAX_COORDINATOR_ADDRESS" in os.environ else 1,
    }
    source = max(found, key=lambda name: found[name])
    return max(found[source], 1), source


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else 1


def _present_clusters() -> list[type[ClusterEnv]]:
    """The environments that JAX knows and finds itself in; the way to ask is a private one."""
    known = [cluster for cluster in ClusterEnv._cluster_types if not cluster.opt_in_only_method]
    return [cluster for cluster in known if cluster.is_env_present()]


def _found_by_jax(reason: Exception) -> tuple[int, str]:
    """How many processes JAX finds by itself, e.g. in the metadata of a TPU VM.

    Raises:
        JoinError: it finds a cluster that does not say of how many.
    """
    try:
        # JAX takes the first as well.
        sizes = [(one.get_process_count(), one.name) for one in _present_clusters()[:1]]
    except Exception as error:
        raise JoinError(
            f"cannot find out whether there are other hosts ({error}); joining them failed: "
            f"{reason}"
        ) from error
    return sizes[0] if sizes else (1, "")


def _check_number(expected: int, source: str) -> None:
    if jax.process_count() < expected:
        raise JoinError(
            f"{source} speaks of {expected} processes, and JAX has joined {jax.process_count()}; "
            "going on would be a run for each of them"
        )


def _not_joined(expected: int, source: str, error: Exception) -> JoinError:
    number = f"{expected} processes" if expected > 1 else "other processes"
    return JoinError(
        f"cannot join the {number} that {source} speaks of: {error}; start the same command on all "
        "hosts, and see that they reach process 0"
    )
