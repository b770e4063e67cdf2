"""Command lines: dataclasses as options, a short help with examples, and the whole one."""

import contextlib
import io
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import tyro

_T = TypeVar("_T")

_PARSED_WIDTH = 80
_HOME = re.compile(r"^(--[\w.-]+=)(~[^/]*)(?=/|$)")
_CONFIG = (tyro.conf.AvoidSubcommands, tyro.conf.HelptextFromCommentsOff)


def parse(
    kind: type[_T],
    *,
    examples: Sequence[str],
    brief: Sequence[str] = (),
    default: Any = tyro.MISSING,
    args: Sequence[str] | None = None,
    description: str | None = None,
) -> _T:
    """The arguments of the command line.

    With `--help` the program describes itself in short, with `--help-all` in full, and ends.

    Args:
        kind: dataclass of the arguments.
        examples: arguments as they may be typed.
        brief: the options that a short help shows, without dashes, `data.batch-size` also for
            `--STAGE.data.batch-size` (none: all that belong to no group).
        default: values of options that are not given.
        args: the command line (None: the program's own).
        description: what the program does (None: the docstring of `kind`).
    """
    given = typed(args)
    options: dict[str, Any] = {"config": _CONFIG, "description": description}
    if default is not tyro.MISSING:
        options["default"] = default
    if "--help-all" in given:
        given = ["--help" if word == "--help-all" else word for word in given]
    elif {"-h", "--help"} & set(given):
        print(_short_help(_full_help(kind, given, options), examples, brief))
        raise SystemExit(0)
    return tyro.cli(kind, args=given, **options)


def typed(args: Sequence[str] | None = None) -> list[str]:
    """The words of a command line (None: the program's own), in which `--output=~/x` means what
    `--output ~/x` does: shells see a home at the beginning of a word only.
    """
    words = sys.argv[1:] if args is None else args
    return [
        _HOME.sub(lambda found: found[1] + os.path.expanduser(found[2]), word) for word in words
    ]


@dataclass(frozen=True)
class _Option:
    name: str
    values: str
    """What it takes, such as `INT`."""
    about: str
    grouped: bool


def _full_help(kind: type, args: Sequence[str], options: dict[str, Any]) -> str:
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")  # boxes are drawn in Unicode only
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(_PARSED_WIDTH)
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            tyro.cli(kind, args=args, **options)
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    said.flush()
    return said.buffer.getvalue().decode()


def _short_help(text: str, examples: Sequence[str], brief: Sequence[str]) -> str:
    """The usage, what the program does, examples, and the options that are asked for most."""
    head, _, _ = text.partition("╭")
    found = list(_options(text))
    shown = _chosen(found, brief)
    program = os.path.basename(sys.argv[0])
    typed = ["Examples:", *(f"  {program} {example}".rstrip() for example in examples)]
    if not shown:  # there are subcommands
        return "\n".join([text, *typed])
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    usage, _, about = head.strip().partition("\n")
    lines = [usage, "", *_filled(" ".join(about.split()), width, ""), "", *typed]
    lines += ["", "Options:"]
    column = min(max(len(f"--{one.name} {one.values}") for one in shown) + 4, 34)
    for one in shown:
        start = f"  --{one.name} {one.values}".rstrip()
        words = _filled(one.about, width, " " * column)
        if len(start) < column:
            words[0] = start.ljust(column) + words[0].strip()
        else:
            words.insert(0, start)
        lines += words
    if len(shown) < len(found):
        lines += ["", f"{len(found) - len(shown)} more options: {program} --help-all"]
    return "\n".join(lines)


def _chosen(options: Sequence[_Option], brief: Sequence[str]) -> list[_Option]:
    """Of the options of several stages those of the last; what is required comes first."""
    if not brief:
        own = [one for one in options if not one.grouped]
        return sorted(own, key=lambda one: not one.about.endswith("(required)"))
    by_name = {one.name.partition(".")[2]: one for one in options}
    by_name |= {one.name: one for one in options}
    return [by_name[name] for name in brief if name in by_name]


def _options(text: str) -> Iterator[_Option]:
    """The options in the boxes of tyro's help."""
    grouped, entry = False, []
    for line in [*text.splitlines(), "╰"]:
        content = line.strip("│ ")
        if line.startswith(("╭", "╰")) or re.match(r"│ (-h, )?--[a-z]", line):
            if entry and not entry[0].startswith("-h"):
                yield _option(entry, grouped)
            entry = [] if line.startswith(("╭", "╰")) else [content]
            grouped = "─ options ─" not in line if line.startswith("╭") else grouped
        elif entry:
            entry.append(content)


def _option(entry: Sequence[str], grouped: bool) -> _Option:
    head, *rest = [*re.split(r"\s{2,}", entry[0], maxsplit=1), *entry[1:]]
    names, _, values = head.removeprefix("-h, ").partition(" ")
    if names.endswith(","):  # `--tpu, --no-tpu`
        names, values = names.rstrip(","), ""
    about = " ".join(" ".join(rest).split())
    if about.count("(default") > 1:  # what the text says of the default is meant for people
        about = re.sub(r" \(default: [^()]*\)$", "", about)
    if "None:" not in about:  # which would say what it means
        about = re.sub(r" ?\(default: (None)?\)$", "", about)
    values = re.sub(r"^\{None\}\|", "", values)
    values = re.sub(r"^\{None,", "{", values)
    return _Option(names.removeprefix("--"), values, about, grouped)


def _filled(text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    ) or [""]
