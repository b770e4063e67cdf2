"""Every command block of README.md and docs, from the text itself, in a folder where small models
and files stand under the names that the text gives.

What needs a cloud, a pod or hours is read by its program's command line and goes no further; a
command that no rule knows fails.
"""

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from PIL import Image

from tests import runs, tiny

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md")
DOCUMENTS = (*PAGES, *sorted((ROOT / "docs").rglob("*.md")))
TRAIN = ("--num-steps", "2", "--data.batch-size", "4", "--model.dtype", "float32")
TRAIN += ("--memory.row-tokens", "128", "--optimizer.warmup-steps", "1", "--memory.remat", "none")


@dataclass(frozen=True)
class Rule:
    """How commands that begin so are run."""

    begins: str
    """A regular expression."""
    kind: str = "program"
    """`program`; `parse`: only its command line; `shell`, `syntax`, `extra`: see `check`."""
    more: tuple[str, ...] = ()
    """Behind the arguments of the text."""
    instead: tuple[tuple[str, str], ...] = ()
    """Arguments and what stands for them."""


RULES = (
    Rule(r"(bash launch/|srun |bash job/)", "shell"),
    Rule(r"(gcloud|tensorboard) ", "syntax"),
    Rule(r"pip install -e '\.\[\w+\]'$", "extra"),
    Rule(r"python launch/tpu/job\.py"),
    Rule(r".*(gs://|--tpu|--coordinator|--distributed)", "cloud"),
    Rule(r"(python launch/plan\.py|python launch/fetch\.py|lco plan)", "parse"),
    Rule(r".* --tasks SeaDoc", "parse"),
    Rule(r"python launch/seadoc\.py", "parse"),
    Rule(r"python launch/prepare_data\.py all_nli"),
    Rule(r"python launch/prepare_data\.py", "parse"),
    Rule(r".* --help$"),
    Rule(r"(python launch/train\.py|lco train) .*configs/(lab|quick)", "parse"),
    Rule(r"(python launch/train\.py|lco train) ", more=TRAIN),
    Rule(r"(python launch/embed\.py|lco embed)"),
    Rule(r"lco search", instead=(("FOLDER", "photos"),)),
    Rule(r"python launch/export\.py"),
    Rule(r"python launch/evaluate\.py .*--tasks STS12", "parse"),
    Rule(r"lco evaluate --model (mteb:|royokong/|Qwen/Qwen3-VL)", "parse"),
    Rule(r"(python launch/evaluate\.py|lco evaluate)", instead=(("offline", "EmojiSimilarity"),)),
    Rule(r"python launch/analyze\.py", more=("--num-pairs", "8", "--k", "3")),
    Rule(r"python launch/compare\.py$"),
    Rule(r"(python launch/compare\.py|lco compare) ", "parse"),
    Rule(r"lco analyze", "parse"),
    Rule(r"python launch/scaling\.py --published"),
    Rule(r"python launch/scaling\.py --grid", "parse"),
    Rule(r"python -m benchmarks\.\w+", "module"),
)


def blocks(document):
    """The languages and texts of its fenced blocks."""
    found = re.findall(r"^```(\w+)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found if language in ("bash", "python")]


def commands():
    """Of all documents, in order: where it stands, its language, and the command or the block."""
    for document in DOCUMENTS:
        for language, text in blocks(document):
            pieces = [text]
            if language == "bash":
                pieces = text.replace("\\\n", " ").splitlines()
                pieces = [re.sub(r"\s+#.*$", "", line).strip() for line in pieces]
            for piece in pieces:
                if piece and not piece.startswith("#"):
                    yield str(document.relative_to(ROOT)), language, " ".join(piece.split(" "))


COMMANDS = list(commands())


def rule_of(command):
    """How a command is run (None: nobody has said)."""
    return next((rule for rule in RULES if re.match(rule.begins, command)), None)


def step_of(language, command):
    """What the runner does for a command (None: nothing)."""
    if language == "python":
        return {"kind": "python", "text": command}
    rule = rule_of(command)
    if rule is None or rule.kind in ("shell", "syntax", "extra", "module"):
        return None
    words = shlex.split(command)
    while not words[0].endswith(("launch/train.py", "launch/embed.py", "lco")):
        if words[0].startswith("launch/"):
            break
        words.pop(0)
    words = [dict(rule.instead).get(word, word) for word in words] + list(rule.more)
    kind = "parse" if rule.kind == "cloud" else rule.kind
    program, *arguments = words
    module = arguments[0] if program == "lco" else Path(program).stem
    module = {"prepare_data": "prepare"}.get(module, module)
    return {"kind": kind, "program": program, "arguments": arguments, "module": module}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a newcomer has who follows the text, in small."""
    folder = tmp_path_factory.mktemp("newcomer")
    for name in ("launch", "data", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name in ("Qwen/Qwen2.5-Omni-3B", "LCO-Embedding/LCO-Embedding-Omni-3B"):
        tiny.write(folder / name, "qwen2_5_omni_thinker", num_layers=1)
    tiny.write(folder / "Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl", num_layers=1)
    for place in ("path/to/smollm2-135m", "MODEL", "runs/quickstart/align/model"):
        tiny.write(folder / place, num_layers=1)
    triplets = runs.write_triplets(folder / "my.jsonl", 16)
    rows = [
        [json.loads(line)[role]["text"] for role in ("anchor", "positive", "negative")]
        for line in triplets.read_text().splitlines()
    ]
    _write_csv(folder / "my.csv", ["query", "answer", "wrong"], rows)
    (folder / "DIR").mkdir()
    _write_csv(folder / "DIR/train.csv", ["anchor", "positive", "negative"], rows)
    _write_media(folder)
    (folder / "configs/my_config.py").write_text(
        "from lco_jax.config import DataConfig, JsonlSource, ModelRef, TrainConfig\n\n\n"
        "def get_config():\n"
        "    data = DataConfig((JsonlSource('my.jsonl'),), batch_size=4)\n"
        "    return TrainConfig(ModelRef('MODEL'), data)\n"
    )
    return folder


def _write_csv(file, names, rows):
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([names, *rows])


def _write_media(folder):
    for name in ("photos", "shards"):
        (folder / name).mkdir()
    for number in range(8):
        Image.new("RGB", (56, 56), (30 * number, 0, 0)).save(folder / f"photos/{number}.png")
    (folder / "photos/note.txt").write_text("a red square")
    shutil.copy(folder / "photos/7.png", folder / "cat.png")
    soundfile.write(folder / "meow.wav", np.sin(np.arange(16_000) / 9), 16_000)
    pairs = {
        "photo": [f"{number}.png" for number in range(8)],
        "caption": [f"a square of shade {number}" for number in range(8)],
    }
    pq.write_table(pa.table(pairs), folder / "shards/0.parquet")
    _write_csv(folder / "shards/0.csv", ["key", "body"], [["7", "a text"], ["8", "another"]])
    with zipfile.ZipFile(ROOT / "data/spoken/clips.zip") as clips:
        (folder / "voice.ogg").write_bytes(clips.read("added.ogg"))
    items = ["a text", {"text": "a text", "image_path": "photos/1.png", "id": "7"}]
    items += [{"audio_path": "voice.ogg"}]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n")


@pytest.fixture(scope="module")
def outcomes(folder):
    """How each command ended; of one that is not run, nothing."""
    own = ["--data", "my.csv", "--columns", "query=anchor,answer=positive,wrong=negative"]
    own += ["--model", "Qwen/Qwen2.5-Omni-3B", "--workdir", "runs/quickstart/refine", *TRAIN]
    first = {"kind": "program", "program": "launch/train.py", "arguments": own, "module": "train"}
    prepare = step_of("bash", "python launch/prepare_data.py all_nli --source-dir DIR")
    steps = {number: step_of(*command[1:]) for number, command in enumerate(COMMANDS)}
    steps = {-2: prepare, -1: first} | {number: step for number, step in steps.items() if step}
    (folder / "steps.json").write_text(json.dumps(list(steps.values())))
    environment = os.environ | {
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    runner = [sys.executable, str(Path(__file__).with_name("runner.py"))]
    run = subprocess.run(
        [*runner, "steps.json", "outcomes.json"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads((folder / "outcomes.json").read_text())
    return dict(zip(steps, found, strict=True))


def test_the_model_that_all_use(outcomes):
    assert outcomes[-1]["code"] == 0, outcomes[-1]["said"]


@pytest.mark.parametrize(
    "number", range(len(COMMANDS)), ids=[f"{place}: {text[:60]}" for place, _, text in COMMANDS]
)
def test_command(number, outcomes, folder):
    _, _, command = COMMANDS[number]
    if number in outcomes:
        assert outcomes[number]["code"] == 0, outcomes[number]["said"][-3000:]
    else:
        rule = rule_of(command)
        assert rule is not None, f"no rule says how to try this command: {command}"
        check(rule, command, folder)


def check(rule, command, folder):
    """What can be said of a command that is not run."""
    words = shlex.split(command)
    if rule.kind == "extra":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert re.search(r"\[(\w+)\]", command)[1] in extras["optional-dependencies"]
    elif rule.kind == "syntax":
        read = subprocess.run(["bash", "-n", "-c", command], capture_output=True)
        assert read.returncode == 0 and not read.stderr
    elif rule.kind == "module":
        assert (ROOT / (words[2].replace(".", "/") + ".py")).is_file()
    elif words[0] == "bash":
        file = folder / words[1]
        assert subprocess.run(["bash", "-n", str(file)]).returncode == 0
    else:
        assert words[0] == "srun" and (ROOT / "launch/train.py").is_file()
