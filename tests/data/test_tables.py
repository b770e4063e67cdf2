"""CSV, parquet and JSON Lines of one's own: what is read, and what bad rows and columns say."""

import gzip
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lco_jax.config import DataConfig, MediaConfig, TableSource
from lco_jax.config.io import from_json, to_json
from lco_jax.data.records import Exchange, Item, Triplet
from lco_jax.data.sources.items import open_items
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.data.sources.open import open_source

COLUMNS = (("query", "anchor"), ("answer", "positive"), ("wrong", "negative"))
ROWS = [
    {"query": 'a "small", cat', "answer": "Katze\nund mehr", "wrong": "dog", "n": "1"},
    {"query": "東京", "answer": "Tokyo; Japan", "wrong": "", "n": "2"},
    {"query": "x\ty", "answer": " z", "wrong": "w", "n": "3"},
]
EXPECTED = [
    Triplet(
        Item(row["query"]),
        Item(row["answer"]),
        (Item(row["wrong"]),) if row["wrong"] else (),
    )
    for row in ROWS
]


def csv_text(rows, delimiter=",", end="\r\n"):
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"'

    lines = [list(rows[0]), *(row.values() for row in rows)]
    return end.join(delimiter.join(map(quoted, line)) for line in lines) + end


def write(folder, name, rows=ROWS):
    """The rows as a file of the kind that its name says."""
    path = folder / name
    if ".parquet" in name:
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return str(path)
    if ".jsonl" in name:
        text = "\n".join(map(json.dumps, rows))
    else:
        text = csv_text(rows, {".csv": ",", ".tsv": "\t", ".txt": ";"}[name[name.index(".") :][:4]])
    content = text.encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return str(path)


def records(*paths, columns=COLUMNS, kind=Triplet, **options):
    return open_source(TableSource(paths, columns), kind, **options).records


@pytest.mark.parametrize(
    "name", ["a.csv", "a.csv.gz", "a.tsv", "a.parquet", "a.jsonl", "a.jsonl.gz"]
)
def test_every_kind_of_file_gives_the_same_records(tmp_path, name):
    found = records(write(tmp_path, name))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(found.__getitem__, [2, 0, 1, 1])) == [
            EXPECTED[i] for i in (2, 0, 1, 1)
        ]
    assert len(found) == 3


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_what_is_known_of_rows_before_they_are_read(tmp_path, name):
    rows = [row | {"query": "a fox " * count} for row, count in zip(ROWS, (1, 50, 10), strict=True)]
    sizes = records(write(tmp_path, name, rows)).sizes_of(np.array([2, 1, 0]))
    assert (sizes[:, 0] == 0).all()  # no media
    if ".parquet" in name:  # which does not say
        assert (sizes[:, 1] == 0).all()
    else:
        middle, longest, shortest = sizes[:, 1].tolist()
        assert longest > middle + 200 and shortest < middle


def test_spreadsheets(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + csv_text(ROWS, ";").encode() + b"\r\n\r\n")
    assert list(records(str(path))) == EXPECTED
    path.write_bytes(csv_text(ROWS).encode("utf-16"))
    with pytest.raises(ValueError, match=r"a\.csv is UTF-16; save it as UTF-8"):
        records(str(path))


def test_several_files_are_one(tmp_path):
    paths = [write(tmp_path, f"{number}.csv", [row]) for number, row in enumerate(ROWS)]
    for given in (paths, [str(tmp_path / "*.csv")], [f"{tmp_path}/[012].csv"], [str(tmp_path)]):
        assert list(records(*given)) == EXPECTED
    assert list(records(*reversed(paths))) == EXPECTED[::-1]
    first = open_source(TableSource(tuple(paths), COLUMNS))
    other = open_source(TableSource((paths[0], paths[2], paths[1]), COLUMNS))
    assert first.digest != other.digest
    with pytest.raises(FileNotFoundError, match=r"\*\.tsv: no file matches"):
        records(str(tmp_path / "*.tsv"))
    with pytest.raises(ValueError, match=r"notes\.xlsx: expected a file with one of \['\.csv'"):
        (tmp_path / "notes.xlsx").write_text("")
        records(str(tmp_path / "notes.xlsx"))


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl.gz"])
def test_digest_follows_the_content(tmp_path, name):
    first = open_source(TableSource((write(tmp_path, name),), COLUMNS)).digest
    assert open_source(TableSource((write(tmp_path, name),), COLUMNS)).digest == first
    other = [*ROWS[:2], ROWS[2] | {"answer": "other"}]
    assert open_source(TableSource((write(tmp_path, name, other),), COLUMNS)).digest != first


def test_media_ids_and_lists(tmp_path):
    rows = [{"p": "img/1.png", "q": "/abs/2.png", "t": "a cat", "s": "gs://b/a.wav", "k": 7}]
    path = write(tmp_path, "a.parquet", [rows[0] | {"w": ["one", "two"]}])
    columns = (("p", "anchor.image_path"), ("q", "anchor.image_path"), ("t", "anchor"))
    columns += (("s", "positive.audio_path"), ("k", "id"), ("w", "negative"))
    expected = Triplet(
        Item("a cat", images=(str(tmp_path / "img/1.png"), "/abs/2.png")),
        Item(audios=("gs://b/a.wav",)),
        (Item("one"), Item("two")),
        "7",
    )
    assert records(path, columns=columns)[0] == expected
    moved = open_source(TableSource((path,), columns, media_root="/media")).records[0]
    assert moved.anchor.images == ("/media/img/1.png", "/abs/2.png")
    several = (("t", "anchor"), ("p", "positive"), ("q", "negative"), ("s", "negative"))
    assert [item.text for item in records(path, columns=several)[0].negatives] == [
        "/abs/2.png",
        "gs://b/a.wav",
    ]


def test_columns_called_like_roles_need_no_mapping(tmp_path):
    rows = [{"anchor": "a", "positive": "b", "negative": "c", "source": "web"}]
    triplet = Triplet(Item("a"), Item("b"), (Item("c"),))
    assert list(records(write(tmp_path, "a.csv", rows), columns=())) == [triplet]
    pair = {"anchor": {"text": "a"}, "positive": "b", "negatives": ["c"]}  # as a JsonlSource
    assert list(records(write(tmp_path, "a.jsonl.gz", [pair]), columns=())) == [triplet]
    exchange = write(tmp_path, "b.csv", [{"q": "Who?", "a": "I."}])
    columns = (("q", "prompt"), ("a", "response"))
    assert records(exchange, columns=columns, kind=Exchange)[0] == Exchange(Item("Who?"), "I.")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            (("qery", "anchor"), *COLUMNS[1:]),
            r"has no column 'qery'; did you mean 'query'\? It has",
        ),
        ((("query", "anchr"), *COLUMNS[1:]), r"query=anchr: no such role; did you mean 'anchor'\?"),
        ((("query", "nothing"),), r"the columns of \S+ are \['query', 'answer', 'wrong', 'n'\]"),
        ((("anchor", "query"),), r"the column comes first; did you mean query=anchor\?"),
        (COLUMNS[:1], r"no column of \S+ is the positive; it has \['query', 'answer'"),
        ((*COLUMNS, ("n", "positive")), "both 'answer' and 'n' are positive"),
        ((*COLUMNS, ("n", "negative"), ("n", "negative.image_path")), "several columns are neg"),
        ((), r"do not say what they are; say it: --columns query=anchor,answer=positive"),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_bad_columns_are_named(tmp_path, name, columns, message):
    with pytest.raises(ValueError, match=message):
        records(write(tmp_path, name), columns=columns)


def test_a_column_that_is_almost_a_role(tmp_path):
    rows = [{"anchor": "a", "positive": "b", "negativ": "c"}]
    with pytest.raises(ValueError, match=r"has a column 'negativ'.* did you mean 'negative'\?"):
        records(write(tmp_path, "a.csv", rows), columns=())


BAD_CSV = {
    "empty": (b"a,,c\n", r"anchor.csv:3: positive is empty \(column 'answer'\)"),
    "blank": (b'" ",b,c\n', r"anchor.csv:3: anchor is empty"),
    "nul": (b"a\0,b,c\n", r"anchor.csv:3: column 'query' holds a NUL character"),
    "encoding": (b"a,caf\xe9,c\n", r"anchor.csv:3: not UTF-8"),
    "cells": (b"a,b\n", r"anchor.csv:3: 2 cells, and the first line names 3 columns"),
    "quote": (b'a,"b" c,d\n', r"anchor.csv:3: not CSV"),
}


@pytest.mark.parametrize("kind", BAD_CSV)
def test_bad_rows_of_csv_follow_on_error(tmp_path, caplog, kind):
    line, message = BAD_CSV[kind]
    path = tmp_path / "anchor.csv"
    path.write_bytes(b'query,answer,wrong\n"one",b,c\n' + line + b"two,b,c\n")
    with pytest.raises(ValueError, match=message):
        records(str(path))
    found = records(str(path), skip_bad=True)
    assert [triplet.anchor.text for triplet in found] == ["one", "two"]
    assert "anchor.csv:3" in caplog.text and "1 bad rows are left out" in caplog.text


def test_lines_are_counted_behind_cells_of_several(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('query,answer\n"a\nb","c\n\nd"\n,e\n')
    with pytest.raises(ValueError, match=r"a\.csv:6: anchor is empty"):
        records(str(path), columns=COLUMNS[:2])
    path.write_text('query,answer\na,b\nc,"d\ne,f\n')
    with pytest.raises(ValueError, match=r"a\.csv:3: not CSV \(unexpected end of data\)"):
        records(str(path), columns=COLUMNS[:2])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"a\.parquet: row 2: positive is empty"),
        (b"\xff", r"a\.parquet: row 2: column 'answer' is not UTF-8"),
    ],
)
def test_bad_rows_of_parquet(tmp_path, value, message):
    answers = pa.array([b"b", value, b"b"], pa.binary())
    answers = answers.cast(pa.string(), safe=True) if value is None else answers
    if value is not None:  # no writer of ours makes such a file
        answers = pa.StringArray.from_buffers(3, *pa.array([b"b", value, b"b"]).buffers()[1:])
    pq.write_table(pa.table({"query": ["a", "b", "c"], "answer": answers}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=message):
        records(str(tmp_path / "a.parquet"), columns=COLUMNS[:2])
    assert len(records(str(tmp_path / "a.parquet"), columns=COLUMNS[:2], skip_bad=True)) == 2


def test_values_of_other_types_are_named(tmp_path):
    path = write(tmp_path, "a.parquet", [{"query": "a", "answer": 5}])
    message = r"a\.parquet: row 1: column 'answer' holds int \('5'\), expected texts"
    with pytest.raises(ValueError, match=message):
        records(path, columns=COLUMNS[:2])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"b\.parquet cannot be read as parquet"):
        records(str(tmp_path / "b.parquet"))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    with pytest.raises(ValueError, match=r"c\.jsonl\.gz cannot be unpacked as gzip"):
        records(str(tmp_path / "c.jsonl.gz"))


def test_categories_of_pandas(tmp_path):
    column = pa.array(["a", "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"query": column, "answer": column}), tmp_path / "a.parquet")
    found = records(str(tmp_path / "a.parquet"), columns=COLUMNS[:2])
    assert [triplet.positive.text for triplet in found] == ["a", "b", "a"]


def test_source_survives_json_and_skips_in_streams(tmp_path):
    source = TableSource((write(tmp_path, "a.csv", [*ROWS, ROWS[0] | {"query": ""}]),), COLUMNS)
    assert from_json(json.loads(json.dumps(to_json(source)))) == source
    with pytest.raises(ValueError, match="anchor is empty"):
        ExampleStream(DataConfig((source,), batch_size=1), seed=0)
    media = MediaConfig(on_error="skip")
    stream = ExampleStream(DataConfig((source,), batch_size=1, media=media), seed=0)
    assert stream.steps_per_epoch == 3


# -------------------------------------------------------------------------------- items to embed


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "deep/c.wav", "deep/d.mp4", ".hidden.png", "notes.pdf"):
        (tmp_path / "in" / name).write_bytes(b"?")
    (tmp_path / "in" / "deep" / "e.txt").write_bytes("\ufeffein Text".encode())
    (tmp_path / "in" / "f.txt").write_bytes(b"\xff")
    return tmp_path / "in"


def test_a_folder_of_files(folder):
    items = open_items(str(folder))
    names = ["a.JPG", "b.png", "deep/c.wav", "deep/d.mp4", "deep/e.txt", "f.txt"]
    assert list(items)[:5] == [
        Item(images=(str(folder / "a.JPG"),), id="a.JPG"),
        Item(images=(str(folder / "b.png"),), id="b.png"),
        Item(audios=(str(folder / "deep/c.wav"),), id="deep/c.wav"),
        Item(videos=(str(folder / "deep/d.mp4"),), id="deep/d.mp4"),
        Item("ein Text", id="deep/e.txt"),
    ]
    assert "f.txt: not UTF-8" in str(items[5])
    assert [item.id for item in items[2:4]] == names[2:4]
    digest = items.digest
    assert open_items(str(folder)).digest == digest
    (folder / "b.png").write_bytes(b"??")
    assert open_items(str(folder)).digest != digest


def test_patterns_and_single_files(folder):
    assert [item.id for item in open_items(f"{folder}/*/*.[wm]*")] == ["deep/c.wav", "deep/d.mp4"]
    assert [item.id for item in open_items(str(folder / "b.png"))] == ["b.png"]
    (folder / "f.txt").write_text("now a text")
    assert [item.id for item in open_items(f"{folder}/**/*.txt")] == ["deep/e.txt", "f.txt"]
    assert [item.id for item in open_items(f"{folder}/dee[p]/*.wav")] == ["deep/c.wav"]
    with pytest.raises(ValueError, match=r"holds no items; expected media or \.txt files"):
        open_items(f"{folder}/*.pdf")
    (folder / "table.csv").write_text("text\na\n")
    with pytest.raises(ValueError, match=r"matches tables such as .* and other files such as"):
        open_items(f"{folder}/*")
    with pytest.raises(ValueError, match="leave out --columns"):
        open_items(f"{folder}/*.png", (("a", "text"),))


def test_tables_of_items(tmp_path):
    (tmp_path / "a.csv").write_text("id,text,image_path,more\n7,a cat,1.png,x\n8,,,y\n")
    found = open_items(str(tmp_path / "a.csv"))
    assert found[0] == Item("a cat", images=(str(tmp_path / "1.png"),), id="7")
    assert "a.csv:3: item is empty" in str(found[1])
    columns = (("more", "text"), ("image_path", "image_path"))
    renamed = open_items(str(tmp_path / "a.csv"), columns, media_root="/media")
    assert renamed[0] == Item("x", images=("/media/1.png",))
    assert renamed.digest != found.digest
    (tmp_path / "b.csv").write_text("body,title\na,b\n")
    with pytest.raises(ValueError, match=r"b\.csv has columns .* say it: --columns body=text"):
        open_items(str(tmp_path / "b.csv"))


def test_items_of_several_paths(tmp_path):
    for name, content in (("a.csv", "text\nx\n"), ("b.csv", "text\ny\n"), ("c.txt", "z")):
        (tmp_path / name).write_text(content)
    a, b, c = (str(tmp_path / name) for name in ("a.csv", "b.csv", "c.txt"))
    assert [item.text for item in open_items([b, a])] == ["y", "x"]
    assert open_items([a, b]).digest == open_items(str(tmp_path / "*.csv")).digest
    (tmp_path / "d.txt").write_text("w")
    assert [item.id for item in open_items([c, str(tmp_path / "d.txt")])] == ["c.txt", "d.txt"]
    with pytest.raises(ValueError, match=r"matches tables such as .*a\.csv and other files"):
        open_items([a, c])
    with pytest.raises(ValueError, match="is a folder among 2 inputs"):
        open_items([a, str(tmp_path)])
