"""kill -9 at random moments of an embedding job: started again, it gives identical files."""

import json
import random
import sys
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.faults import runner

NUM_ITEMS, PIECE = 600, 40
SECONDS = 200


def embed(folder: Path, output: Path) -> None:
    """`lco embed` in a process of its own, with small parts."""
    from lco_jax.cli.embed import main
    from lco_jax.embed import embed_file

    embed_file._PIECE = PIECE
    options = {"model": folder, "input": folder / "items.jsonl", "output": output}
    named = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    sys.argv = ["embed.py", *named, "--compilation-cache", str(folder / "compilations")]
    sys.exit(main())


def start(folder: Path, output: Path):
    process = runner._context.Process(target=embed, args=(folder, output))
    process.start()
    return process


def finish(folder: Path, output: Path) -> dict[str, bytes]:
    """What there is after the job has ended by itself: every file, by name."""
    process = start(folder, output)
    process.join(SECONDS)
    assert process.exitcode == 1  # one item has no vector
    return {file.name: file.read_bytes() for file in output.parent.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["npy", "parquet"])
def test_identical_after_ten_kills(tmp_path, suffix):
    folder = tmp_path / "model"
    tiny.write(folder, num_layers=1)
    lines = [f"item {number} " + "word " * (number % 40) for number in range(NUM_ITEMS)]
    lines[100] = {"text": 7}
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    output = tmp_path / "undisturbed" / f"out.{suffix}"
    finish(folder, output)  # compiles
    began = time.monotonic()
    undisturbed = finish(folder, output)
    whole_s = time.monotonic() - began
    assert set(undisturbed) == {output.name, f"{output.name}.errors.jsonl"}

    output, generator, kills, within = tmp_path / "killed" / f"out.{suffix}", random.Random(0), 0, 0
    while kills < 10:
        for file in output.parent.glob("out*"):
            if file.is_file():
                file.unlink()
        process = start(folder, output)
        if kills % 2:  # at any time, and while vectors are made
            wait_for(output.with_name(f"{output.name}.partial"), process)
            time.sleep(generator.uniform(0, 0.3 * whole_s))
        else:
            time.sleep(generator.uniform(0, whole_s))
        process.kill()
        process.join(SECONDS)
        if process.exitcode == 1:  # it was done before
            continue
        kills += 1
        within += output.with_name(f"{output.name}.partial").exists()
        assert finish(folder, output) == undisturbed
    assert within >= 3


def wait_for(path: Path, process) -> None:
    while not path.exists() and process.is_alive():
        time.sleep(0.01)
