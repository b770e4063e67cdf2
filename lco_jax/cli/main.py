"""The console command `lco`: it finds the program of a subcommand and runs it."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lco_jax import __version__

USAGE = 2


@dataclass(frozen=True)
class _Command:
    """A program, imported when it is run."""

    module: str
    """Of `lco_jax.cli`; it has a function `main`, which reads `sys.argv`."""
    summary: str

    def load(self) -> Callable[[], int]:
        return importlib.import_module(f"lco_jax.cli.{self.module}").main


COMMANDS: dict[str, dict[str, _Command]] = {
    "Train": {
        "train": _Command("train", "Train a model, on one device or on every host of a TPU slice"),
        "prepare": _Command("prepare", "Build a dataset that configs name"),
        "fetch": _Command("fetch", "Fetch the small real models of the quickstart"),
    },
    "Use": {
        "embed": _Command("embed", "Vectors of texts, images, audio and videos in files"),
        "search": _Command(
            "search", "Find in files what is nearest to a text, image, recording or video"
        ),
        "export": _Command("export", "Write a model for transformers and sentence-transformers"),
    },
    "Measure": {
        "evaluate": _Command("evaluate", "Score a model on offline tasks and those of mteb"),
        "compare": _Command("compare", "Published tables, and results of your own beside them"),
        "analyze": _Command("analyze", "Measure the representations in every layer"),
        "scaling": _Command("scaling", "Fit the scaling law, and compare runs with the bound"),
        "seadoc": _Command("seadoc", "Run the three arms of SeaDoc in small"),
    },
    "Run on TPU": {
        "plan": _Command("plan", "Memory, time and rehearsal of a run on a slice, without one"),
        "job": _Command("job", "Write the files that start a job on Cloud TPU"),
    },
}
"""By what they are for."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that the command line begins with; the exit code is its own."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {name: one for group in COMMANDS.values() for name, one in group.items()}
    if not given or given[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if given else USAGE
    name, *rest = given
    if name in ("--version", "version"):
        print(f"lco_jax {__version__}")
        return 0
    if name not in commands:
        close = difflib.get_close_matches(name, commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(commands)}"
        sys.stderr.write(f"error: lco has no command {name!r}; {hint} (lco --help)\n")
        return USAGE
    sys.argv = [f"lco {name}", *rest]  # the name of the program in its usage
    return commands[name].load()()


def _help() -> str:
    width = max(len(name) for group in COMMANDS.values() for name in group)
    lines = ["usage: lco COMMAND [OPTIONS]", "", "Omnimodal embedding models in JAX (LCO-Emb)."]
    for title, group in COMMANDS.items():
        lines += ["", f"{title}:"]
        lines += [f"  {name:<{width}}  {one.summary}" for name, one in group.items()]
    lines += [
        "",
        "Examples:",
        "  lco embed --model runs/quickstart/refine --input items.jsonl --output vectors.parquet",
        "  lco train --config lco_omni_7b_text --tpu --workdir gs://BUCKET/run",
        "",
        "lco COMMAND --help tells of a command, lco --version which release this is.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
