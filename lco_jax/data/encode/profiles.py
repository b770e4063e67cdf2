"""Prompt recipes by name: what is written around items, and how they are cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from lco_jax.config import ProfileName
from lco_jax.models.tokens import Kind


@dataclass(frozen=True)
class Profile:
    """How items are written."""

    max_text_tokens: int
    order: tuple[Kind, ...] = ()
    """Of the media of an item; its text follows."""
    dominant: tuple[Kind, ...] = ()
    """A mixture is called by the first of these that it has; empty: by none."""
    takes_empty: bool = False
    """Whether a text of no characters has a vector."""
    has_turns: bool = True
    """Whether an item is a turn of the chat template that asks for one word. Otherwise it is a text
    between the tokens that the tokenizer puts around one, of which the last is pooled."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What stands before texts, by name: of queries, where they are not written as documents."""


_TASK = "Given a web search query, retrieve relevant passages that answer the query"
# Source: LCO-Emb released trainers and README (lco); mteb's LCO-Embedding wrapper (mteb); the
# settings of Qwen3-Embedding for sentence-transformers, mteb's Qwen3 wrapper (qwen3-embedding).
PROFILES: dict[ProfileName, Profile] = {
    "lco": Profile(650, ("image", "video", "audio")),
    "mteb": Profile(
        300, ("video", "audio", "image"), ("image", "video", "audio"), takes_empty=True
    ),
    "qwen3-embedding": Profile(
        8191,
        takes_empty=True,
        has_turns=False,
        prompts={"query": f"Instruct: {_TASK}\nQuery:"},
    ),
}


def check_profile(name: str) -> None:
    """Refuse a prompt recipe that is not here.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(name, str) or name not in PROFILES:
        raise ValueError(f"profile={name!r} is none of {list(get_args(ProfileName))}")
