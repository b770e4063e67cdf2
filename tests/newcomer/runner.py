"""Runs programs and pieces of Python one after another in one process, as a newcomer would in many:
`runner.py STEPS OUTCOMES`, both JSON files.
"""

import contextlib
import importlib
import io
import json
import runpy
import sys
import time
import traceback
from pathlib import Path


def run(step: dict) -> int:
    """The exit code of a step."""
    try:
        if step["kind"] == "python":
            exec(compile(step["text"], "block", "exec"), {"__name__": "block"})
            return 0
        sys.argv = [step["program"], *step["arguments"]]
        with only_parsed(step["module"]) if step["kind"] == "parse" else contextlib.nullcontext():
            if step["program"].endswith("lco"):
                return importlib.import_module("lco_jax.cli.main").main()
            runpy.run_path(step["program"], run_name="__main__")
    except SystemExit as stop:
        return stop.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


@contextlib.contextmanager
def only_parsed(name: str):
    """A program that ends well when its command line has been understood."""
    module = importlib.import_module(f"lco_jax.cli.{name}")
    parse = module.parse

    def stop(*positional, **named):
        parse(*positional, **named)
        raise SystemExit(0)

    module.parse = stop
    try:
        yield
    finally:
        module.parse = parse


def main() -> None:
    steps, target = (Path(argument) for argument in sys.argv[1:])
    outcomes = []
    for step in json.loads(steps.read_text()):
        said, start = io.StringIO(), time.time()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = run(step)
        outcomes.append({"code": code, "said": said.getvalue(), "seconds": time.time() - start})
        target.write_text(json.dumps(outcomes))


if __name__ == "__main__":
    main()
