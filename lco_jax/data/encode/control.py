"""Control tokens in texts, which are read as the characters that they are written with."""

import json
import re
import secrets
import string

from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer


class ControlTokens:
    """The control tokens of a tokenizer, and the tokenizer with other names for them.

    What the chat template writes gets the other names, too, and a text never has them: of a turn
    whose text holds `<|im_end|>`, the renamed tokenizer knows the tokens of the template alone.
    Everything else is as before, also what a token takes of the white space around it.

    Control tokens are those that are marked as special, and others in angle brackets, such as
    `<tool_call>`, but for bytes such as `<0x0A>`.

    Merges may make one of characters, as those of SentencePiece make `<s>`: the renamed tokenizer
    has none of these merges.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._original = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._ids = {
            token.content: index
            for index, token in added.items()
            if token.special or re.fullmatch(r"<(?!0x[0-9A-F]{2}>)\S+>", token.content)
        }
        normalized = any(added[index].normalized for index in self._ids.values())
        found_later = normalized or any(map(self._is_made, self._ids))
        self._normalizer = tokenizer.normalizer if found_later else None
        self._keeps_ascii = self._normalizer is None or _keeps_ascii(self._normalizer)
        longest_first = sorted(self._ids, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._first_chars = sorted({name[0] for name in self._ids})
        self._renamed: Tokenizer | None = None
        # Nobody can write a text that has them: they are new in every process.
        secret = secrets.token_hex(8)
        self._names = {name: f"[{secret}{index}]" for name, index in self._ids.items()}

    def may_be_in(self, text: str) -> bool:
        """Whether a text, or one of several in one, has a character that a control token begins
        with. Looking for a character or two is far quicker than looking for all names.
        """
        if any(char in text for char in self._first_chars):
            return True
        return not self._is_kept(text)

    def are_in(self, text: str) -> bool:
        """Whether the tokenizer would find a control token in a text."""
        if not self.may_be_in(text):
            return False
        if self._pattern.search(text):
            return True
        if self._is_kept(text):
            return False
        return bool(self._pattern.search(self._normalizer.normalize_str(text)))

    def _is_kept(self, text: str) -> bool:
        """Whether control tokens are looked for in the text as it stands, not as normalised."""
        return self._normalizer is None or (self._keeps_ascii and text.isascii())

    def _is_made(self, name: str) -> bool:
        """Whether the model makes a control token of its characters, unless it is looked for."""
        return any(token.value == name for token in self._original.model.tokenize(name))

    def rename(self, markup: str) -> str:
        """What the chat template writes, with the other names of its tokens."""
        return self._pattern.sub(lambda found: self._names[found[0]], markup)

    @property
    def renamed(self) -> Tokenizer:
        """The tokenizer that knows the other names; made when it is first asked for.

        Raises:
            ValueError: it gives tokens other numbers.
        """
        if self._renamed is None:
            renamed = Tokenizer.from_str(json.dumps(self._rename_all()))
            renamed.no_truncation()
            renamed.no_padding()
            for name, index in self._ids.items():
                found = renamed.token_to_id(self._names[name])
                if found != index:
                    raise ValueError(
                        f"the tokenizer gives {name!r} the number {index}, and {found} under "
                        "another name; set control_tokens to tokens"
                    )
            self._renamed = renamed
        return self._renamed

    def _rename_all(self) -> dict:
        content = json.loads(self._original.to_str())
        content["post_processor"] = None  # it adds tokens around texts, which are not asked for
        for token in content["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        model = content["model"]
        if isinstance(model["vocab"], dict):
            model["vocab"] = {self._names.get(k, k): v for k, v in model["vocab"].items()}
        else:  # pairs of a token and its score
            model["vocab"] = [[self._names.get(k, k), v] for k, v in model["vocab"]]
        if "merges" in model:
            model["merges"] = [merge for merge in model["merges"] if not self._names_one(merge)]
        if isinstance(model.get("unk_token"), str):
            model["unk_token"] = self._names.get(model["unk_token"], model["unk_token"])
        return content

    def _names_one(self, merge: str | list[str]) -> bool:
        """Whether a control token is a part of a merge, or what it makes."""
        parts = merge.split(" ") if isinstance(merge, str) else merge
        return any(name in self._names for name in (*parts, "".join(parts)))


def _keeps_ascii(normalizer: Normalizer) -> bool:
    return normalizer.normalize_str(string.printable) == string.printable
