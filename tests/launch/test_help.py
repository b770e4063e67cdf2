"""`--help` of every program under `launch/`: it ends well, describes, and lists typed options."""

import re
import runpy
import sys
from pathlib import Path

import pytest

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


def help_of(monkeypatch, capsys, program, *command):
    """The lines of what a program says when it is asked for help, without boxes; it must end with
    exit code 0.
    """
    monkeypatch.setattr(sys, "argv", [str(program), *command, "--help"])
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
