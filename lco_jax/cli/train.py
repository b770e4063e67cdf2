"""The command line of `launch/train.py`."""

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import tyro

from lco_jax.cli.exits import DONE, program
from lco_jax.config import TrainConfig

log = logging.getLogger(__name__)

_CONFIGS = Path(__file__).parents[2] / "configs"
_DEFAULT = _CONFIGS / "quickstart.py"
_DEFAULT_TPU = _CONFIGS / "lco_omni_7b_text.py"


@dataclass(frozen=True)
class _Front:
    config: Path | None = None
    """Python file with `get_config()` (default: the quickstart; with --tpu: Omni-7B)."""
    workdir: str | None = None
    """Run folder, local or gs:// (default: runs/ and the config's name)."""
    tpu: bool = False
    """Join the other hosts of the slice, insist on TPU devices, cache compilations."""
    dry_run: bool = False
    """Compile the step for the declared mesh on simulated devices and print what it takes."""
    compilation_cache: str = str(Path("~/.cache/lco_jax/xla").expanduser())
    """Where compiled programs are kept between starts, local or gs:// (one for all hosts)."""
    num_devices: int | None = None
    """With --dry-run: how many devices to simulate (default: the product of the mesh)."""


@dataclass(frozen=True)
class _Arguments(_Front):
    """Train an embedding model; every setting of the config is an option below."""

    run: Annotated[TrainConfig, tyro.conf.arg(name="")] = tyro.MISSING


@program
def main() -> int:
    """Parse, run one stage, report."""
    front, _ = tyro.cli(_Front, return_unknown_args=True, add_help=False)
    path = front.config or (_DEFAULT_TPU if front.tpu else _DEFAULT)
    arguments = tyro.cli(
        _Arguments,
        default=_Arguments(path, front.workdir, run=load_config(path)),
        config=(tyro.conf.AvoidSubcommands,),
    )
    config = arguments.run
    workdir = arguments.workdir or str(Path("runs") / path.stem)

    from lco_jax.train import mesh

    if arguments.dry_run:
        from lco_jax.train.dry_run import dry_run, simulate_devices

        simulate_devices(config.mesh, arguments.num_devices)
        print(dry_run(config))
        return DONE
    if arguments.tpu:
        mesh.start_tpu()
    jax.config.update("jax_compilation_cache_dir", arguments.compilation_cache)

    from lco_jax.analysis.report import write_report
    from lco_jax.evaluate.hook import retrieval_hook
    from lco_jax.train.loop import train

    result = train(config, workdir, evaluate=retrieval_hook(config, workdir))
    if result.stopped_by is not None:
        log.info("saved after step %d of %d; run again to go on", result.step, result.num_steps)
        return 128 + result.stopped_by
    if config.logging.report and jax.process_index() == 0:
        log.info("report: %s", write_report(workdir))
    return DONE


def load_config(path: Path) -> TrainConfig:
    """The config of a file with `get_config()`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file has no `get_config`, or it returns something else.
    """
    if not path.is_file():
        known = ", ".join(sorted(file.name for file in _CONFIGS.glob("*.py")))
        raise FileNotFoundError(f"no config file {path}; configs/ has {known}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config() if hasattr(module, "get_config") else None
    if not isinstance(config, TrainConfig):
        raise ValueError(f"{path} must define get_config() that returns a TrainConfig")
    return config
