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
    template = _compile(job["template"], job["max_range"])
    _limit(job["max_bytes"], job["max_seconds"])
    found = [
        _render(template, {**job["variables"], **one}, job["max_chars"])
        for one in job["conversations"]
    ]
    json.dump(found, sys.stdout)


def _compile(source: str, max_range: int) -> Any:
    """As transformers compiles chat templates.

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
            raise OverflowError(f"range of {len(numbers)} numbers, the limit is {max_range}")
        return numbers

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
        "range": bounded_range,
    }
    return environment.from_string(source)


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
                return {"error": f"it writes more than {max_chars} characters"}
    except MemoryError:
        return {"error": "it needs more memory than the limit"}
    except Exception as error:  # templates raise all kinds of errors
        line = getattr(error, "lineno", None)
        place = "" if line is None else f" in line {line}"
        return {"error": f"{type(error).__name__}{place}: {error}"[:1000]}
    return {"text": "".join(parts)}


if __name__ == "__main__":
    main()
