"""Does something to damaged input in a process of its own, and says how that ended."""

import collections
import contextlib
import faulthandler
import functools
import io
import math
import multiprocessing
import os
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

LIMIT_S = 20.0
LIMIT_BYTES = 2 << 30
"""Of memory beyond what the imported libraries have mapped."""

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.faults.preload"])


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    kind: str
    """`right` (or `wrong`, if it came to an end with something else than expected), `refused` (an
    error that a program tells in one line and that has one of the names in it), `nameless` (one
    that has none), `traceback` (an exception that a program would show as a bug), `hang`, or
    `killed`."""
    said: str
    """The message, the traceback, or the name of the signal and where it struck."""
    cpu_s: float = math.nan
    """Seconds of computing until then, of what has come to an end by itself."""


GOOD = ("right", "refused")


def run(
    act: Callable[..., Any],
    *arguments: Any,
    names: Sequence[str],
    expected: Callable[[Any], bool] | None = None,
    limit_s: float = LIMIT_S,
    limit_bytes: int = LIMIT_BYTES,
) -> Outcome:
    """Call `act(*arguments)`, a function of a module, in a new process.

    Args:
        act: returns what `expected` is asked about (in the new process).
        names: of which the message of an error must have one, such as that of the damaged file.
        expected: a function of a module; whether a result is right (default: every one).
    """
    (outcome,) = run_many(
        functools.partial(_spread, act),
        [arguments],
        names=names,
        expected=expected,
        limit_s=limit_s,
        limit_bytes=limit_bytes,
    )
    return outcome


def _spread(act: Callable[..., Any], arguments: tuple) -> Any:
    return act(*arguments)


def run_many(
    act: Callable[[Any], Any],
    cases: Sequence[Any],
    *,
    names: Sequence[str],
    expected: Callable[[Any], bool] | None = None,
    limit_s: float = LIMIT_S,
    limit_bytes: int = LIMIT_BYTES,
) -> list[Outcome]:
    """As `run(act, case, ...)` of every case, but in one process for as many as it survives."""
    outcomes: list[Outcome] = []
    while len(outcomes) < len(cases):
        rest = list(cases[len(outcomes) :])
        with tempfile.NamedTemporaryFile() as said:
            work = (said.name, act, rest, tuple(names), expected, limit_bytes)
            outcomes += _outcomes(work, len(rest), said, limit_s)
    return outcomes


def _outcomes(work: tuple, count: int, said: BinaryIO, limit_s: float) -> Iterator[Outcome]:
    """Of as many cases as a process comes to."""
    receiver, sender = _context.Pipe(duplex=False)
    process = _context.Process(target=_children, args=(sender, *work))
    process.start()
    sender.close()
    try:
        receiver.recv()  # that it has started, which takes long on a busy machine
        for _ in range(count):
            if not receiver.poll(limit_s):
                yield Outcome("hang", f"nothing after {limit_s:g} s")
                return
            yield Outcome(*receiver.recv())
    except EOFError:
        process.join(limit_s)
        ended = _how_it_ended(process.exitcode or 0)
        yield Outcome("killed", f"{ended}\n{said.read().decode(errors='replace')[:4000]}")
    finally:
        process.kill()
        process.join()
        receiver.close()


def _how_it_ended(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _children(sender, said, act, cases, names, expected, limit_bytes) -> None:
    with open(os.devnull, "w") as nothing, open(said, "w") as file:
        os.dup2(nothing.fileno(), 1)
        os.dup2(file.fileno(), 2)
    faulthandler.enable()  # says where a signal has ended the process
    _leave_libtpu_out()
    sender.send(None)
    for case in cases:
        _limit_memory(limit_bytes)  # of this case: what earlier ones left mapped is not its own
        sender.send(_judge(act, (case,), names, expected))


def _leave_libtpu_out() -> None:
    """Where it is installed for plans it starts with JAX, and maps more than a case may."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def _limit_memory(limit_bytes: int) -> None:
    with open("/proc/self/statm") as file:
        mapped = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limit_bytes, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _judge(act, arguments, names, expected) -> tuple[str, str, float]:
    start = time.process_time()
    kind, said = _kind_and_message(act, arguments, names, expected)
    return kind, said, time.process_time() - start


def _kind_and_message(act, arguments, names, expected) -> tuple[str, str]:
    """As `lco_jax.cli.exits.program` does: what it would tell in one line is no traceback."""
    from lco_jax.cli.exits import program

    result: list[Any] = []

    def main() -> int:
        result.append(act(*arguments))
        return 0

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            code = program(main)()
    except BaseException:
        return "traceback", traceback.format_exc(limit=-12)
    if code == 0:
        right = expected is None or expected(result[0])
        return ("right", "") if right else ("wrong", repr(result[0])[:500])
    message = said.getvalue()
    if not any(name in message for name in names):
        return "nameless", message
    return "refused", message


def count(outcomes: Iterable[Outcome]) -> dict[str, int]:
    """How many ended in which way."""
    return dict(collections.Counter(outcome.kind for outcome in outcomes))


def bad(outcomes: Iterable[tuple[Any, Outcome]]) -> list[tuple[Any, Outcome]]:
    """The cases, each with its outcome, that did not end well."""
    return [(case, outcome) for case, outcome in outcomes if outcome.kind not in GOOD]
