"""Chat templates, which are programs by strangers, rendered within bounds."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_CHARS = 100_000
"""That a conversation may become."""
MAX_RANGE = 10_000
"""Numbers of a `range`."""
MAX_SECONDS = 5
"""Of the processor, for all conversations together."""
MAX_BYTES = 512 << 20
"""Of memory."""
_PATIENCE_S = 120
"""On the clock, for a machine that is busy with other things."""
_CHILD = Path(__file__).with_name("render_child.py")

Conversation = dict[str, Any]
"""What a template is given: `messages` and `add_generation_prompt`."""


class ChatTemplate:
    """What a chat template makes of some conversations.

    They are rendered together in a process of their own, in the sandbox of transformers: what a
    template does there ends with it.

    Args:
        source: the template.
        place: the file that it is from, as errors name it.
        variables: that all conversations have besides their own.

    Raises:
        ValueError: the template is no Jinja, or goes beyond a limit.
    """

    def __init__(
        self,
        source: str,
        place: str,
        variables: dict[str, Any],
        conversations: Sequence[Conversation],
    ):
        self.place = place
        job = {
            "template": source,
            "variables": variables,
            "conversations": conversations,
            "max_chars": MAX_CHARS,
            "max_range": MAX_RANGE,
            "max_seconds": MAX_SECONDS,
            "max_bytes": MAX_BYTES,
        }
        found = self._run(json.dumps(job))
        self._found = {
            json.dumps(conversation): one
            for conversation, one in zip(conversations, found, strict=True)
        }

    def render(self, conversation: Conversation) -> str:
        """The text of one of the conversations.

        Raises:
            ValueError: the template raises an error; the message names the file.
        """
        found = self._found[json.dumps(conversation)]
        if "error" in found:
            raise ValueError(f"{self.place}: the chat template fails ({found['error']})")
        return found["text"]

    def _run(self, job: str) -> list[dict[str, str]]:
        # Of the environment nothing counts but where modules are.
        command = [sys.executable, "-I", "-S", str(_CHILD), *sys.path]
        try:
            done = subprocess.run(
                command, input=job, capture_output=True, text=True, timeout=_PATIENCE_S
            )
        except subprocess.TimeoutExpired as error:
            raise self._beyond(f"takes more than {_PATIENCE_S} s") from error
        if done.returncode < 0:  # by a signal: the system has ended it
            raise self._beyond(f"takes more than {MAX_SECONDS} s of the processor, the limit")
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise ValueError(f"{self.place}: the chat template cannot be rendered ({last})")
        found = json.loads(done.stdout)
        if "limit" in found:
            raise self._beyond(found["limit"])
        if "broken" in found:
            raise ValueError(f"{self.place}: the chat template is no Jinja: {found['broken']}")
        return found

    def _beyond(self, what: str) -> ValueError:
        return ValueError(f"{self.place}: the chat template {what}; use another template")
