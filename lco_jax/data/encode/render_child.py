"""Renders chat templates in a process of its own, which may need little time and memory.

Run as a program, with paths of modules as arguments: nothing of the package is imported. It reads
a job from its standard input and writes what became of each conversation, both as JSON.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Render the conversations of the job one after another."""
    sys.path[:] = sys.argv[1:]
    job = json.load(sys.stdin)
    environment = _environment(job["max_range"])
    _limit(job["max_bytes"], job["max_seconds"])
    try:
        template = environment.from_string(job["template"])
    except Exception as error:  # of the parser, and of Python for what is nested too deeply
        json.dump({"broken": _in_words(error)}, sys.stdout)
        return
    found = []
    for one in job["conversations"]:
        found.append(_render(template, {**job["variables"], **one}, job["max_chars"]))
        if "limit" in found[-1]:
            found = found[-1]
            break
    json.dump(found, sys.stdout)


class BeyondError(Exception):
    """A template asks for more than a limit."""


def _environment(max_range: int) -> Any:
    """As transformers has it for chat templates.

    Source: transformers `_cached_compile_jinja_template`.
    """
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """Blocks that mark what the model says; here they write their content."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            call = self.call_method("_content")
            return jinja2.nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _content(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(
            x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )

    def strftime_now(format):
        from datetime import datetime

        return datetime.now().strftime(format)

    def bounded_range(*arguments):
        numbers = range(*arguments)
        if len(numbers) > max_range:
            raise BeyondError(f"counts to {len(numbers)}, and the limit is {max_range}")
        return numbers

    class TemplateDict:
        """Without the attributes of the class."""

        def __call__(self, *arguments, **named):
            return dict(*arguments, **named)

        def fromkeys(self, *arguments, **named):
            return dict.fromkeys(*arguments, **named)

    class TemplateNamespace(jinja2.utils.Namespace):
        """Without names that begin with an underscore."""

        def __init__(*arguments, **named):
            self, *rest = arguments
            attributes = dict(*rest, **named)
            for name in attributes:
                TemplateNamespace._check(name)
            jinja2.utils.Namespace.__init__(self, attributes)

        def __setitem__(self, name, value):
            TemplateNamespace._check(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name):
            if isinstance(name, str) and name.startswith("_"):
                raise jinja2.exceptions.SecurityError(f"a namespace cannot have {name!r}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "range": bounded_range,
        "dict": TemplateDict(),
        "namespace": TemplateNamespace,
    }
    return environment


def _limit(max_bytes: int, max_seconds: float) -> None:
    """The memory and the time of the processor of this process, where the system can."""
    try:
        import resource
    except ImportError:
        return
    seconds = int(max_seconds) + 1
    for kind, limit in (
        (resource.RLIMIT_AS, max_bytes),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        _, most = resource.getrlimit(kind)
        if most == resource.RLIM_INFINITY or limit <= most:
            resource.setrlimit(kind, (limit, most))


def _render(template: Any, variables: dict[str, Any], max_chars: int) -> dict[str, str]:
    """The text, or the error in words."""
    parts, size = [], 0
    try:
        for part in template.generate(**variables):
            parts.append(part)
            size += len(part)
            if size > max_chars:
                return {"limit": f"writes more than {max_chars} characters, the limit"}
    except BeyondError as error:
        return {"limit": str(error)}
    except MemoryError:
        return {"limit": "needs more memory than the limit"}
    except Exception as error:  # templates raise all kinds of errors
        return {"error": _in_words(error)}
    return {"text": "".join(parts)}


def _in_words(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    place = "" if line is None else f" in line {line}"
    return f"{type(error).__name__}{place}: {error}"[:500]


if __name__ == "__main__":
    main()
