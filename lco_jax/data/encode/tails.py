"""What a chat template writes behind texts, tokenised once instead of behind each."""

import re
from typing import NamedTuple

from tokenizers import Tokenizer

_ENDS = (
    *("word", "Word", "WORD", "it's", "7", "12", "1234", "a.", "a...", "?!", "x)", "x_", "-", "<|"),
    *("'", "é", "ß", "東京", "ไทย", "हिन्दी", "\u0958", "한국어", "\u1100", "عربي", "😀", "a\u0301"),
    *("\u200d", "\u200b", "\u00ad", "a b", "a\n\nb", "a\n\n.", "x\u00a0y", "\x00"),
)
"""Of texts, each of which a tokenizer may join to what follows in its own way."""


class Tail(NamedTuple):
    """What follows a text, divided where no token reaches across."""

    joined: str
    """As far as a tokenizer may join it to the text."""
    tokens: list[int]
    """Of the rest."""


class Tails:
    """Divides what follows texts.

    It is divided before its first control token, which is looked for before all else; or if a line
    break comes first, between that and a letter: tokenizers that divide texts into words begin one
    there, whatever the text is. They are asked, with texts that end in many ways. Texts that end
    with white space are no such texts: some tokenizers give their last blank to what follows.
    """

    def __init__(self, tokenizer: Tokenizer, *, joins_lines: bool):
        self._tokenizer = tokenizer
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self._joins = joins_lines or any("\n" in token for token in added)
        longest_first = sorted(filter(None, added), key=len, reverse=True)
        control = "|".join(map(re.escape, longest_first)) or r"(?!)"
        self._place = re.compile(rf"(?={control})|(?<=\n)(?=[A-Za-z])")
        self._known: dict[str, Tail | None] = {}

    def divide(self, text: str, after: str) -> Tail | None:
        """What follows a text; None if it is not known where no token reaches across."""
        if not text or text[-1].isspace():
            return None
        if after not in self._known:
            self._known[after] = self._divide(after)
        return self._known[after]

    def _divide(self, after: str) -> Tail | None:
        place = self._place.search(after)
        if place is None or self._joins:
            return None
        joined = after[: place.start()]
        begins = self._ids([end + joined for end in _ENDS])
        wholes = self._ids([end + after for end in _ENDS])
        tokens = wholes[0][len(begins[0]) :]
        if all(begin + tokens == whole for begin, whole in zip(begins, wholes, strict=True)):
            return Tail(joined, tokens)
        return None

    def _ids(self, texts: list[str]) -> list[list[int]]:
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids for encoding in found]
