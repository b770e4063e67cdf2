"""`--help` and `--help-all` of every program under `launch/` and of every subcommand of `lco`: they
end well, describe, give examples, and list typed options."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import lco_jax
from lco_jax.cli import train
from lco_jax.cli.configs import find_config, load_config
from lco_jax.cli.main import COMMANDS as COMMANDS_OF_LCO
from lco_jax.cli.main import main

LAUNCH = Path(__file__).parents[2] / "launch"
PROGRAMS = sorted(LAUNCH.rglob("*.py"))
COMMANDS = (
    "wordnet",
    "emoji",
    "spoken",
    "synthetic_speech",
    "libreoffice",
    "openclipart",
    "all_nli",
    "parallel_pairs",
)
"""Of `prepare_data.py`; each has options of its own."""


def help_of(monkeypatch, capsys, program, *command, how="--help-all"):
    """The lines of what a program says when it is asked for help, without boxes; it must end with
    exit code 0.
    """
    monkeypatch.setattr(sys, "argv", [str(program), *command, how])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(program), run_name="__main__")
    said = capsys.readouterr()
    assert stop.value.code in (0, None), said.err
    return [
        line.strip("│╭╰╮╯─- " if set(line) & set("╭╰") else "│ ") for line in said.out.split("\n")
    ]


def check_described(lines):
    """After the usage, which names the program, comes what it does."""
    usage, _, rest = "\n".join(lines).partition("\n\n")
    assert usage.startswith("usage: ")
    assert re.match(r"[A-Z]\w+( \S+)+", rest), rest[:200]


def check_options(lines):
    """There are options beside `--help`, each with a type and a default, or required."""
    text = "\n".join(lines)
    options = re.split(r"^(?=--[a-z])", text, flags=re.MULTILINE)[1:]
    assert options
    for option in options:
        words = " ".join(option.split())
        assert re.match(r"--[a-z][\w.-]*( [A-Z{\[(]|,? .*no-)", words), words
        assert "(default: " in words or "(required)" in words or "(optional)" in words, words


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(LAUNCH)))
def test_help(program, monkeypatch, capsys):
    lines = help_of(monkeypatch, capsys, program)
    check_described(lines)
    if program.stem == "prepare_data":
        assert set(COMMANDS) == set(re.search(r"\{([\w,]+)\}", lines[0])[1].split(","))
    else:
        check_options(lines)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(LAUNCH)))
def test_short_help(program, monkeypatch, capsys):
    lines = help_of(monkeypatch, capsys, program, how="--help")
    assert len(lines) < 60
    check_described(lines)
    examples = lines[lines.index("Examples:") + 1 :]
    assert [line.split()[0] for line in examples[:2]] == [program.name] * 2
    # What an example names are options that there are.
    everything = " ".join(help_of(monkeypatch, capsys, program))
    typed = re.sub("'[^']*'", "", " ".join(examples[:2]))
    for option in [] if program.stem == "prepare_data" else re.findall(r"--[a-z][\w.-]*", typed):
        assert re.search(rf"--(refine\.)?{re.escape(option[2:])}\b", everything), option


def test_short_help_of_train_has_the_options_that_it_names(monkeypatch, capsys):
    """An option of its own comes before those of settings that end alike (`--mesh.data`)."""
    lines = help_of(monkeypatch, capsys, LAUNCH / "train.py", how="--help")
    shown = {line.split()[0] for line in lines if line.startswith("--")}
    assert "--refine.mesh.data" not in shown
    for name in train._BRIEF:
        assert shown & {f"--{name}", f"--refine.{name}"}, name


@pytest.mark.parametrize("name", [name for group in COMMANDS_OF_LCO.values() for name in group])
def test_every_subcommand_is_there(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code in (0, None)
    assert capsys.readouterr().out.startswith(f"usage: lco {name} ")


def test_lco(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for group in COMMANDS_OF_LCO.values() for name in group)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lco_jax {lco_jax.__version__}\n"
    assert main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err
    assert main([]) == 2


def test_help_loads_no_jax():
    code = (
        "import sys\nfrom lco_jax.cli.main import main\n"
        "try:\n    main(['{name}', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "sys.exit('jax' in sys.modules)"
    )
    for name in ("embed", "train", "plan"):
        run = subprocess.run([sys.executable, "-c", code.format(name=name)], capture_output=True)
        assert run.returncode == 0, run.stderr


def test_a_name_finds_a_shipped_config(capsys, monkeypatch):
    assert find_config("lco_omni_7b_text") == find_config("lco_omni_7b_text.py")
    assert load_config("lco_omni_7b_text").model.path == "Qwen/Qwen2.5-Omni-7B"
    monkeypatch.setattr(sys, "argv", ["lco train", "--config", "lco_omni_7b"])
    assert train.main() == 2
    assert "did you mean lco_omni_7b_text or " in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_dataset(command, monkeypatch, capsys):
    lines = help_of(monkeypatch, capsys, LAUNCH / "prepare_data.py", command)
    check_described(lines)
    check_options(lines)


def test_help_has_the_defaults_of_a_config(monkeypatch, capsys):
    config = LAUNCH.parent / "configs" / "seadoc_high.py"
    plan = LAUNCH / "plan.py"
    lines = help_of(monkeypatch, capsys, plan, "--config", str(config), "--stage", "read")
    assert "(default: Qwen/Qwen2.5-VL-3B-Instruct)" in " ".join(" ".join(lines).split())


_SAID_FIRST = """
import logging, os, sys
from lco_jax.cli import embed, evaluate, search

class Stop(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), sorted({"jax", "transformers", "torch"} & sys.modules.keys()))
        sys.stdout.flush()
        os._exit(0)

logging.getLogger("lco_jax").addHandler(Stop())
getattr(sys.modules["lco_jax.cli." + sys.argv.pop(1)], "main")()
"""


@pytest.mark.parametrize(
    "options",
    (
        ["embed", "--input", "a.jsonl", "--output", "a.npy"],
        ["search", ".", "a red kangaroo"],
        ["evaluate"],
    ),
    ids=lambda options: options[0],
)
def test_something_is_said_before_libraries_are_read(tmp_path, options):
    name, *others = options
    command = [sys.executable, "-c", _SAID_FIRST, name, "--model", str(tmp_path), *others]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert said == f"reading the model {tmp_path} []\n"


def test_a_name_of_no_model_is_refused_before_libraries_are_read(tmp_path):
    command = [sys.executable, "-X", "importtime", str(LAUNCH / "embed.py"), "--model", "nowhere"]
    command += ["--input", "a.jsonl", "--output", str(tmp_path / "a.npy")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "'nowhere' is neither a folder nor a hub id" in done.stderr
    assert not re.search(r"\| +(jax|transformers)$", done.stderr, re.MULTILINE)
