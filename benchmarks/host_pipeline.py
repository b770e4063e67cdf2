"""What the host does for a batch beside decoding and tokenising, and what it sends to the device.

python -m benchmarks.host_pipeline --json results.jsonl

With `--before CHECKOUT` another revision of the package does the same in the same run.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

_ROOT = Path(__file__).parents[1]
_WORDS = (Path("data") / "quickstart" / "wordnet_test.jsonl", "positive")
_PATCH_PX = 14
_STEPS = 192
"""Of a run: what is done once in it, such as filling what is read ahead, is little beside them."""
_WARM_STEPS = 2
_YARDSTICKS = 16
"""How often decoding and tokenising alone are done before the runs, and as often after them."""
_NUM_EXAMPLES = 8192


@dataclass(frozen=True)
class Arguments:
    """Load training batches of texts alone and of texts with images, on one core."""

    model: Path = Path("~/.cache/lco_jax/lab-omni")
    """Hub folder with the tokenizer; `lco fetch lab-omni` makes it. Its images get patches of 14
    pixels, as those of Qwen2.5-Omni have."""
    image_px: int = 700
    """Side of the images, JPEG files."""
    num_images: int = 32
    """Also the triplets of a batch with one each."""
    num_texts: int = 1024
    """Triplets of a batch of texts alone."""
    repeats: int = 3
    before: Path | None = None
    """Checkout of another revision, which does the same."""
    json: Path | None = None
    """Append the figures to this file."""


def main(arguments: Arguments) -> None:
    """Write data, measure each revision in processes of its own, print."""
    with tempfile.TemporaryDirectory() as name:
        job = _write_job(arguments, Path(name))
        sides = {"here": _ROOT}
        if arguments.before:
            sides = {"before": arguments.before, **sides}
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for _ in range(arguments.repeats):
            for side, checkout in sides.items():
                runs[side].append(_run(checkout, job))
    found = {
        side: {name: float(np.median([run[name] for run in own])) for name in own[0]}
        for side, own in runs.items()
    }
    if arguments.before:
        names = ("texts_per_core_s", "images_per_core_s")
        found["ratio"] = {name: found["here"][name] / found["before"][name] for name in names}
    _show({side: found[side] for side in sides})
    if arguments.json:
        from benchmarks.results import append_line  # which earlier revisions lack

        append_line(arguments.json, "host_pipeline", found)


def _write_job(arguments: Arguments, folder: Path) -> Path:
    """Images, triplets, and a model folder of which only the tokenizer is read."""
    rng = np.random.default_rng(0)
    model = folder / "model"
    model.mkdir()
    for file in arguments.model.expanduser().iterdir():
        if file.suffix in (".json", ".jinja"):
            (model / file.name).write_bytes(file.read_bytes())
    for name in ("config.json", "preprocessor_config.json"):
        content = json.loads((model / name).read_text())
        content.get("vision_config", content)["patch_size"] = _PATCH_PX
        (model / name).write_text(json.dumps(content))
    lines = (_ROOT / _WORDS[0]).read_text().splitlines()
    texts = [json.loads(line)[_WORDS[1]]["text"] for line in lines]
    for number in range(arguments.num_images):
        small = rng.integers(0, 256, (150, 150, 3), np.uint8)
        image = Image.fromarray(small).resize((arguments.image_px,) * 2, Image.Resampling.BICUBIC)
        image.save(folder / f"{number}.jpg", quality=90)

    def text() -> dict[str, str]:
        return {"text": texts[rng.integers(len(texts))]}

    plain = [
        {"anchor": text(), "positive": text(), "negative": text()} for _ in range(_NUM_EXAMPLES)
    ]
    shown = [
        {
            "anchor": {"image_path": f"{number % arguments.num_images}.jpg"},
            "positive": text(),
            "negative": text(),
        }
        for number in range(_NUM_EXAMPLES)
    ]
    for name, triplets in (("texts", plain), ("images", shown)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in triplets))
    job = asdict(arguments) | {"folder": str(folder)}
    (folder / "job.json").write_text(json.dumps(job, default=str))
    return folder / "job.json"


def _run(checkout: Path, job: Path) -> dict[str, float]:
    """The figures of a revision, from a process that has one core."""
    done = subprocess.run(
        [sys.executable, __file__, "--side", str(job)],
        env=os.environ | {"PYTHONPATH": str(checkout.resolve()), "JAX_PLATFORMS": "cpu"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------- in that process


def measure(job_file: Path) -> dict[str, float]:
    """Seconds and bytes of this process's revision."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    import tokenizers

    from lco_jax.config import Contrastive, DataConfig, JsonlSource, MediaConfig, Memory
    from lco_jax.data.encode.processor import Processor
    from lco_jax.data.media.images import load_image
    from lco_jax.data.pack.batch import Batch
    from lco_jax.models.config import read_config
    from lco_jax.objectives.traits import traits_of

    job = json.loads(job_file.read_text())
    folder = Path(job["folder"])
    media = MediaConfig(image_max_pixels=job["image_px"] ** 2)
    config = read_config(folder / "model")
    processor = Processor(folder / "model", config, media=media)

    def load(name: str, batch_size: int, num_steps: int) -> tuple[dict[str, float], Batch]:
        """Seconds of this process's core to open the data and for a step, and the last batch of a
        loader that has ended. As in training, others are let go.
        """
        data = DataConfig((JsonlSource(str(folder / f"{name}.jsonl")),), batch_size=batch_size)
        make = traits_of(Contrastive()).make_loader
        start = time.process_time()
        loader = make(data, Memory(), processor, Contrastive(), seed=0, num_steps=num_steps)
        opened = time.process_time()
        for found in loader:
            batch = found[1]
        step_s = (time.process_time() - opened) / num_steps
        return {"open": opened - start, "step": step_s}, batch

    def seconds(work: Callable[[], object]) -> float:
        """Of this process's core."""
        work()
        start = time.process_time()
        for _ in range(_YARDSTICKS):
            work()
        return (time.process_time() - start) / _YARDSTICKS

    rows = [json.loads(line) for line in (folder / "texts.jsonl").read_text().splitlines()]
    rows = rows[: job["num_texts"]]
    turns = [row[role]["text"] + processor.prompter.prompt for row in rows for role in row]
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "model" / "tokenizer.json"))
    paths = [str(folder / f"{number}.jpg") for number in range(job["num_images"])]

    def decode() -> None:
        """Each image is let go, as the loader does: memory of all at a time is cleared anew."""
        for path in paths:
            np.asarray(load_image(path))

    def alone() -> np.ndarray:
        """Seconds of tokenising and of decoding."""
        return np.array([
            seconds(lambda: tokenizer.encode_batch_fast(turns, add_special_tokens=False)),
            seconds(decode),
        ])  # fmt: skip

    before = alone()
    sizes = {"texts": len(rows), "images": len(paths)}
    for name, size in sizes.items():
        load(name, size, _WARM_STEPS)
    (texts, _), (images, batch) = (load(name, size, _STEPS) for name, size in sizes.items())
    tokenise_s, decode_s = (before + alone()) / 2
    sent = sum(x.nbytes for x in batch.media.vision if x is not None)
    per_text = texts["step"] / (3 * len(rows))
    beside_texts = images["step"] - 2 * len(paths) * per_text
    return {
        "texts_per_core_s": 1 / per_text,
        "images_per_core_s": len(paths) / beside_texts,
        "beyond_tokenising": texts["step"] / tokenise_s - 1,
        "beyond_decoding": beside_texts / decode_s - 1,
        "bytes_per_image": sent / len(paths),
        "open_rows_s": _NUM_EXAMPLES / texts["open"],
    }


def _show(found: dict[str, dict[str, float]]) -> None:
    table = Table("", *found, title="host, one core")
    labels = {
        "texts_per_core_s": ("texts/s", "{:,.0f}"),
        "images_per_core_s": ("images/s", "{:,.1f}"),
        "beyond_tokenising": ("time beyond tokenising", "{:.0%}"),
        "beyond_decoding": ("time beyond decoding", "{:.0%}"),
        "bytes_per_image": ("bytes to the device an image", "{:,.0f}"),
        "open_rows_s": ("rows/s checked once at the start", "{:,.0f}"),
    }
    for name, (label, form) in labels.items():
        table.add_row(label, *(form.format(side[name]) for side in found.values()))
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
    else:
        main(tyro.cli(Arguments))
