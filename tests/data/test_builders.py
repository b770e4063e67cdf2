"""TFDS builders: what is written comes back, bad rows are named, WordNet pairs are held apart."""

import csv
import json
import multiprocessing
import pickle
import random
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lco_jax.data.sources.datasets import open_dataset, prepare
from lco_jax.data.sources.parallel_pairs import even_quotas
from lco_jax.lab.corpora import wordnet_source

QUICKSTART = Path(__file__).parents[2] / "data" / "quickstart"
ALPHABET = "abc déñ日本ไทย,\"'"


def random_texts(seed: int, count: int, columns: int) -> list[tuple[str, ...]]:
    rng = random.Random(seed)
    return [
        tuple(
            f"{row}x" + "".join(rng.choices(ALPHABET, k=rng.randint(1, 20))) for _ in range(columns)
        )
        for row in range(count)
    ]


def write_rows(path: Path, names: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".tsv":
        path.write_text("".join("\t".join(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([names, *rows])


# ------------------------------------------------------------------------------------- all-NLI


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize(
    "names", [("anchor", "positive", "negative"), ("sent0", "sent1", "hard_neg")]
)
def test_all_nli(tmp_path, suffix, names):
    rows = {"train": random_texts(0, 70, 3), "dev": random_texts(1, 5, 3)}
    for split, texts in rows.items():
        write_rows(tmp_path / f"copy/triplet/{split}-00000-of-00001.{suffix}", names, texts)
    write_rows(tmp_path / "copy/pair/train.jsonl", ("anchor", "positive"), [("a b", "c d")])
    data_dir = str(tmp_path / "tfds")
    prepare("all_nli", data_dir, source_dir=str(tmp_path / "copy"))
    for split, texts in rows.items():
        source = pickle.loads(pickle.dumps(open_dataset("all_nli", split, data_dir)))
        assert len(source) == len(texts)
        found = {(r["anchor"], r["positive"], *r["negatives"]) for r in source}
        assert found == set(texts)
        assert len({record["id"] for record in source}) == len(texts)
    first = open_dataset("all_nli/triplet", "train[:10%]", data_dir)
    assert [first[index] for index in range(7)] == list(first)


def test_unsplit_file_is_train(tmp_path):
    texts = random_texts(2, 9, 3)
    path = tmp_path / "nli_for_simcse.csv"
    write_rows(path, ("sent0", "sent1", "hard_neg"), texts)
    prepare("all_nli", str(tmp_path), source_dir=str(path))
    assert len(open_dataset("all_nli", "train", str(tmp_path))) == 9
    with pytest.raises(ValueError, match=r"no split 'dev'; use \['train'\]"):
        open_dataset("all_nli", "dev", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "anchor,positive\nx,y\n", r"a.csv has columns .*'positive'.*; expected"),
        ("a.csv", "anchor,positive,negative\nx,y,z\nx,,z\n", r"a.csv:3: column 'positive' is ''"),
        ("a.csv", "anchor,positive,negative\nx,y\n", r"a.csv:2: column 'negative' is None"),
        ("a.jsonl", '{"anchor": "x"\n', r"a.jsonl:1: not JSON"),
        ("a.jsonl", '\n["x"]\n', r"a.jsonl:2: expected an object"),
        (
            "a.jsonl",
            '{"anchor": "x", "positive": "y", "negative": 3}\n',
            r"a.jsonl:1: column 'negative' is 3",
        ),
        ("a.tsv", "x\ty\tz\nx\ty\n", r"a.tsv:2: 2 columns, expected 3"),
        ("a.parquet", "no parquet", r"a.parquet cannot be read as parquet"),
        ("a.csv", b"anchor,positive,negative\n\xff,y,z\n", r"a.csv cannot be read as csv.*utf-8"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, content, message):
    source = tmp_path / "copy" / name
    source.parent.mkdir()
    source.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        prepare("all_nli", str(tmp_path / "tfds"), source_dir=str(source.parent))
    with pytest.raises(FileNotFoundError, match="not prepared"):
        open_dataset("all_nli", "train", str(tmp_path / "tfds"))


def test_bad_requests(tmp_path):
    data_dir = str(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"prepare_data.py all_nli --source-dir"):
        open_dataset("all_nli", "train", data_dir)
    with pytest.raises(FileNotFoundError, match=r"prepare_data.py parallel_pairs --config en-id"):
        open_dataset("parallel_pairs/en-id", "train", data_dir)
    with pytest.raises(FileNotFoundError, match=r"empty holds no .parquet"):
        prepare("all_nli", data_dir, source_dir=str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="unknown dataset 'all_nly'; known are"):
        open_dataset("all_nly", "train", data_dir)
    with pytest.raises(ValueError, match="no config 'pair'"):
        open_dataset("all_nli/pair", "train", data_dir)
    with pytest.raises(ValueError, match="max_pairs=0"):
        prepare("parallel_pairs", data_dir, source_dir=data_dir, max_pairs=0)


# -------------------------------------------------------------------------------- parallel pairs


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ([5, 100, 100], 45, [5, 20, 20]),
        ([100, 3, 100], 10, [3, 3, 4]),
        ([2, 2], 10, [2, 2]),
        ([7, 0, 7], 6, [3, 0, 3]),
        ([9, 9, 9], 1, [0, 0, 1]),
    ],
)
def test_even_quotas(counts, limit, expected):
    assert even_quotas(counts, limit) == expected


def test_parallel_pairs_are_drawn_evenly_and_reproducibly(tmp_path):
    rows = {"en-id": random_texts(3, 60, 2), "en-th": random_texts(4, 50, 2)}
    rows["en-km"] = random_texts(5, 8, 2)
    copy = tmp_path / "copy"
    write_rows(copy / "en-id/train.parquet", ("english", "non_english"), rows["en-id"])
    write_rows(copy / "en-th-train.tsv", ("src", "tgt"), rows["en-th"])
    write_rows(copy / "en-km.jsonl", ("one", "two"), rows["en-km"])
    drawn = []
    for attempt in "ab":
        data_dir = str(tmp_path / attempt)
        prepare("parallel_pairs", data_dir, source_dir=str(copy), max_pairs=40)
        source = open_dataset("parallel_pairs", "train", data_dir)
        assert all(not record["negatives"] for record in source)
        drawn.append({(record["anchor"], record["positive"]) for record in source})
    assert drawn[0] == drawn[1]
    assert [len(drawn[0] & set(texts)) for texts in rows.values()] == [16, 16, 8]


def test_parallel_pairs_of_one_language(tmp_path):
    texts = random_texts(6, 12, 2)
    write_rows(tmp_path / "copy/en-id/train.parquet", ("src", "tgt"), texts)
    for other in ("en-th", "en-id-x"):
        write_rows(tmp_path / f"copy/{other}/train.parquet", ("src", "tgt"), random_texts(7, 12, 2))
    data_dir, source_dir = str(tmp_path / "tfds"), str(tmp_path / "copy")
    prepare("parallel_pairs/en-id", data_dir, source_dir=source_dir)
    source = open_dataset("parallel_pairs/en-id", "train", data_dir)
    assert {(record["anchor"], record["positive"]) for record in source} == set(texts)
    with pytest.raises(FileNotFoundError, match="no file for 'en-vi'"):
        prepare("parallel_pairs/en-vi", data_dir, source_dir=source_dir)


# -------------------------------------------------------------------------------------- WordNet


def test_wordnet_prepares_itself_once_for_all_processes(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        request = pool.map(open_dataset, ["wordnet"] * 2, ["test"] * 2, [str(tmp_path)] * 2)
        sources = list(request)
    lines = [json.loads(line) for line in (QUICKSTART / "wordnet_test.jsonl").open()]
    expected = {line["id"]: (line["anchor"]["text"], line["positive"]["text"]) for line in lines}
    for source in sources:
        assert {r["id"]: (r["anchor"], r["positive"]) for r in source} == expected
    train = open_dataset("wordnet", "train", str(tmp_path))
    assert len(train) == 6000
    assert all(len(train[index]["negatives"]) == 1 for index in range(0, 6000, 97))


def test_committed_files():
    lines = {
        split: [json.loads(line) for line in (QUICKSTART / f"wordnet_{split}.jsonl").open()]
        for split in ("train", "test")
    }
    assert [len(lines["train"]), len(lines["test"])] == [6000, 500]
    used = {
        line[role]["text"].split(":")[0] for line in lines["train"] for role in line if role != "id"
    }
    for line in lines["test"]:
        assert line["positive"]["text"].split(":")[0] not in used
        assert all(len(line[role]["text"].split()) > 3 for role in ("anchor", "positive"))
    assert not {line["id"] for line in lines["train"]} & {line["id"] for line in lines["test"]}
    assert "Princeton University" in (QUICKSTART / "LICENSE.wordnet").read_text()
    assert sum(path.stat().st_size for path in QUICKSTART.iterdir()) < 2_000_000


def test_parse_synset():
    line = (
        "00003131 00 s 02 abducting 0 well_liked(a) 1 003 & 00002843 a 0000 ;u 06730476 n 0000 "
        '! 00003356 a 0101 | moving away, from "here" on; "an abducting muscle"; "another one"\n'
    )
    synset = wordnet_source.parse_synset(line)
    assert synset.id == "00003131-a"
    assert synset.lemmas == ("abducting", "well liked")
    assert synset.definition == 'moving away, from "here" on'
    assert synset.examples == ("an abducting muscle", "another one")
    assert synset.gloss == 'abducting: moving away, from "here" on'
    assert synset.related("&", "!") == ["00002843-a", "00003356-a"]


def test_pairs_are_held_apart(monkeypatch):
    monkeypatch.setattr(wordnet_source, "NUM_TEST", 20)
    monkeypatch.setattr(wordnet_source, "NUM_EXAMPLE_LINES", 60)
    monkeypatch.setattr(wordnet_source, "NUM_SYNONYM_LINES", 40)
    rng = random.Random(0)
    synsets = {}
    for number in range(300):
        parent = number // 10
        synset = wordnet_source.Synset(
            id=f"{number:08}-n",
            lemmas=tuple(f"word{rng.randrange(900)}" for _ in range(rng.randint(1, 3))),
            definition=f"the definition of number {number}",
            examples=(f"an example of number {number}",) if number % 2 else (),
            pointers=(("@", f"{parent:08}-n"),)
            + tuple(("~", f"{child:08}-n") for child in range(10 * number, 10 * number + 10))
            * (number < 30),
        )
        synsets[synset.id] = synset
    train, test = wordnet_source.split_pairs(synsets, random.Random(1))
    assert (train, test) == wordnet_source.split_pairs(synsets, random.Random(1))
    assert [len(train), len(test)] == [100, 20]
    by_definition = {synset.definition: synset for synset in synsets.values()}
    held_out = {lemma for line in test for lemma in synsets[line["id"]].lemmas}
    num_siblings = 0
    for line in train:
        positive = synsets[line["id"]]
        negative = by_definition[line["negative"]["text"].split(": ")[-1]]
        assert negative != positive
        assert held_out.isdisjoint(positive.lemmas + negative.lemmas)
        num_siblings += negative.related("@") == positive.related("@")
    assert num_siblings > 90


def test_reading_needs_neither_tensorflow_nor_torch(tmp_path):
    code = (
        "import sys; from lco_jax.data.sources.datasets import open_dataset;"
        f"print(len(open_dataset('wordnet', 'test', {str(tmp_path)!r})),"
        "sorted({'torch', 'tensorflow', 'jax'} & sys.modules.keys()))"
    )
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert run.stdout == "500 []\n", run.stderr
