"""The order of examples, each process's share of it, and going on where a run stopped."""

import itertools
import json
import re
import threading
import time
from collections import Counter

import numpy as np
import pytest

from lco_jax.config import Columns, DataConfig, JsonlSource, Memory, TfdsSource
from lco_jax.data.encode.processor import Processor
from lco_jax.data.pack.batch import Batch
from lco_jax.data.pack.shares import check_batch_size
from lco_jax.data.sources.mixture import ExampleStream
from lco_jax.data.sources.open import OpenSource, open_source, read_pairs
from lco_jax.models.config import ModelConfig
from lco_jax.objectives.loaders import ContrastiveLoader
from tests.tokenizers import write_tokenizer

BATCH = 24
MEMORY = Memory(encode_chunks=2, row_tokens=(64, 128))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three sources whose texts say where they come from, and a tokenizer."""
    path = tmp_path_factory.mktemp("data")
    write_tokenizer(path)
    rng = np.random.default_rng(0)
    for name, size in {"a": 100, "b": 60, "c": 30}.items():
        lines = []
        for index in range(size):
            filler = " ".join(["word"] * int(rng.integers(1, 12)))
            line = {"anchor": f"{name} {index}", "positive": f"{name} {index} is {filler}"}
            if index % 3:
                line["negative"] = f"{name} {index} is not {filler}"
            lines.append(json.dumps(line))
        (path / f"{name}.jsonl").write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def prompter(folder):
    return Processor(folder, ModelConfig("qwen2", text=None))


def data_config(folder, names="a", weights=(1.0, 1.0, 1.0), **changes):
    sources = tuple(
        JsonlSource(str(folder / f"{name}.jsonl"), weight)
        for name, weight in zip(names, weights, strict=False)
    )
    return DataConfig(sources, **{"batch_size": BATCH, **changes})


def make_loader(folder, prompter, *, names="a", memory=MEMORY, num_steps=10, seed=3, **changes):
    return ContrastiveLoader(
        data_config(folder, names), memory, prompter, seed=seed, num_steps=num_steps, **changes
    )


def load_with_processes(folder, prompter, shares, **arguments):
    """What the loader of each share gives, with agreement through shared memory."""
    barrier, asked = threading.Barrier(len(shares)), {}
    results = [None] * len(shares)

    def run(index):
        times = itertools.count()  # a key serves again

        def agree(key, values):
            said = asked.setdefault((key, next(times)), {})
            said[index] = values
            barrier.wait(30)
            return tuple(np.max(list(said.values()), axis=0).tolist())

        loader = make_loader(
            folder,
            prompter,
            num_shards=4,
            shards=shares[index],
            agree=agree,
            **arguments,
        )
        results[index] = list(loader)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def items_of(batch):
    """Each item of a batch by its number: its tokens, and its content hash."""
    order = np.argsort(batch.segments.ravel(), kind="stable")
    segments, tokens = batch.segments.ravel()[order], batch.tokens.ravel()[order]
    return {
        int(segment): tuple(tokens[segments == segment].tolist())
        for segment in np.unique(segments[segments > 0])
    }


def hashes(batch):
    return [tuple(pair) for pair in batch.content[batch.valid].tolist()]


def assert_equal(left, right):
    assert left.media is right.media is None
    assert left.targets is right.targets is None
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def texts_of_step(stream, step, batch_size=BATCH):
    return [stream[step * batch_size + index].anchor.text for index in range(batch_size)]


def test_batch_holds_the_examples_of_the_step(folder, prompter):
    config = data_config(folder)
    stream = ExampleStream(config, 3)
    for step, batch, stats in make_loader(folder, prompter, num_shards=4, num_steps=3):
        found = items_of(batch)
        expected = {}
        for index in range(BATCH):
            example = stream[step * BATCH + index]
            items = (example.anchor, example.positive, *example.negatives)
            for role, encoded in enumerate(prompter.encode(items)):
                expected[index * 3 + role + 1] = tuple(encoded.tokens.tolist())
        assert found == expected
        assert stats.shape.rows * 4 == batch.tokens.shape[1]
        assert stats.slots == batch.tokens.size
        assert (
            stats.real_tokens == np.count_nonzero(batch.segments) == sum(map(len, found.values()))
        )
        assert stats.waited_s >= 0


@pytest.mark.parametrize(
    "shares",
    [
        ((0, 1), (2, 3)),
        ((0,), (1,), (2,), (3,)),
        ((0, 2), (1, 3)),  # of a torus
        ((3,), (0, 1, 2)),
        ((0, 1), (0, 1), (2, 3), (2, 3)),  # a tensor axis crosses hosts
    ],
    ids=str,
)
def test_processes_together_have_the_same_batch(folder, prompter, shares):
    alone = list(make_loader(folder, prompter, num_shards=4, names="abc", groups=set(shares)))
    together = load_with_processes(folder, prompter, shares, names="abc")
    for index, (step, batch, _) in enumerate(alone):
        parts = [part[index] for part in together]
        assert all(part[0] == step for part in parts)
        # Rows and examples of all shards, side by side, are the arrays of the single process.
        joined = {
            name: join_shards([getattr(part[1], name) for part in parts], name, shares)
            for name in batch._fields
            if getattr(batch, name) is not None
        }
        assert_equal(Batch(**joined), batch)


def join_shards(arrays, name, shares):
    axis = 2 if name in ("pool", "valid", "content") else 1
    pieces = {}
    for array, shards in zip(arrays, shares, strict=True):
        for shard, piece in zip(shards, np.split(array, len(shards), axis), strict=True):
            np.testing.assert_array_equal(pieces.setdefault(shard, piece), piece)
    return np.concatenate([pieces[shard] for shard in sorted(pieces)], axis)


def test_the_mesh_does_not_change_what_is_read(folder, prompter):
    reference = [items_of(batch) for _, batch, _ in make_loader(folder, prompter)]
    for chunks, num_shards in ((1, 1), (1, 8), (4, 2), (3, 4)):
        memory = Memory(encode_chunks=chunks, row_tokens=(64, 128))
        loader = make_loader(folder, prompter, memory=memory, num_shards=num_shards)
        assert [items_of(batch) for _, batch, _ in loader] == reference


@pytest.mark.parametrize(("chunks", "num_shards"), [(1, 8), (2, 5), (1, 1)])
def test_each_shard_has_as_many_of_each_source(folder, prompter, chunks, num_shards):
    """Those with images take many times the room, and the fullest shard decides for all."""
    stream = ExampleStream(data_config(folder, "abc"), 3)
    memory = Memory(encode_chunks=chunks, row_tokens=(64, 128))
    loader = make_loader(folder, prompter, names="abc", memory=memory, num_shards=num_shards)
    for step in range(5):
        read = loader._encode(step).numbers
        assert sorted(read[read >= 0].tolist()) == list(range(BATCH))
        numbers = loader._numbers_of(step)  # before those of a process are levelled
        cells = numbers.reshape(chunks * num_shards, -1)
        kinds = stream.sizes_of(range(step * BATCH, (step + 1) * BATCH))[:, 0]
        for kind in range(3):
            counts = [np.count_nonzero(kinds[cell[cell >= 0]] == kind) for cell in cells]
            # Where the batch does not divide, some cells have one example more than others.
            assert max(counts) - min(counts) <= 1 + (BATCH % len(cells) > 0)


def test_resume_is_exact(folder, prompter):
    whole = list(make_loader(folder, prompter, names="ab"))
    first = make_loader(folder, prompter, names="ab")
    for step, _, _ in first:
        if step == 5:
            break
    state = json.loads(json.dumps(first.get_state()))
    assert state["next_step"] == 6
    second = make_loader(folder, prompter, names="ab")
    second.set_state(state)
    rest = list(second)
    assert [step for step, _, _ in rest] == [6, 7, 8, 9]
    for (_, batch, _), (_, expected, _) in zip(rest, whole[6:], strict=True):
        assert_equal(batch, expected)
    assert list(second) == []  # at its end


def test_processes_that_stop_early_have_asked_the_same(folder, prompter):
    keys = {}
    for delay_s in (0.0, 0.02):  # a slow and a fast process
        keys[delay_s] = asked = []

        def agree(key, values, asked=asked, delay_s=delay_s):
            time.sleep(delay_s)
            asked.append(key)
            return values

        batches = iter(make_loader(folder, prompter, num_shards=2, shards=(0,), agree=agree))
        assert [next(batches)[0] for _ in range(3)] == [0, 1, 2]
        batches.close()
    assert keys[0.0] == keys[0.02] == ["batch shape"] * 5


def test_other_data_are_refused_by_name(folder, prompter):
    state = make_loader(folder, prompter, names="ab").get_state()
    with pytest.raises(ValueError, match=r"trained with \['b\.jsonl 60 .*has \['c\.jsonl 30") as no:
        make_loader(folder, prompter, names="ac").set_state(state)
    assert "a.jsonl" not in str(no.value)
    with pytest.raises(ValueError, match=r"seed=3.*seed=4"):
        make_loader(folder, prompter, names="ab", seed=4).set_state(state)


def test_each_pass_sees_all_examples_in_another_order(folder):
    stream = ExampleStream(data_config(folder), 3)
    assert stream.steps_per_epoch == 4
    passes = [texts_of_step(stream, number, batch_size=96) for number in range(3)]
    for texts in passes:
        assert len(set(texts)) == 96  # whole batches of 100 examples, none twice
    assert len({tuple(texts) for texts in passes}) == 3
    assert set().union(*passes) == {f"a {index}" for index in range(100)}
    assert texts_of_step(ExampleStream(data_config(folder), 3), 7) == texts_of_step(stream, 7)
    assert texts_of_step(ExampleStream(data_config(folder), 4), 7) != texts_of_step(stream, 7)


def test_weights_of_a_mixture(folder):
    stream = ExampleStream(data_config(folder, "abc", weights=(3.0, 2.0, 1.0)), 0)
    assert stream.steps_per_epoch == 190 // BATCH
    for step in range(12):  # every batch has the shares, not only their mean
        counts = Counter(text[0] for text in texts_of_step(stream, step))
        assert counts == {"a": 12, "b": 8, "c": 4}


def test_homogeneous_batches(folder):
    config = data_config(folder, "abc", weights=(3.0, 2.0, 1.0), homogeneous=True)
    stream = ExampleStream(config, 0)
    batches = [texts_of_step(stream, step) for step in range(60)]
    names = [{text[0] for text in texts} for texts in batches]
    assert all(len(found) == 1 for found in names)
    assert Counter(min(found) for found in names) == {"a": 30, "b": 20, "c": 10}
    assert all(len(set(texts)) == BATCH for texts in batches)


def test_small_sources(folder, caplog):
    with pytest.raises(ValueError, match=r"batch_size=40 .* all 30 .* \(c\.jsonl 30\): .* most 30"):
        ExampleStream(data_config(folder, "c", batch_size=40), 0)
    with pytest.raises(ValueError, match=r"batch_size=192 .* all 190 .*b\.jsonl 60, c\.jsonl 30\)"):
        ExampleStream(data_config(folder, "abc", batch_size=192), 0)
    with pytest.raises(ValueError, match=r"batch_size=40 takes 40 examples of c\.jsonl, .* has 30"):
        ExampleStream(data_config(folder, "ac", batch_size=40, homogeneous=True), 0)
    ExampleStream(data_config(folder, "ac", batch_size=80), 0)
    assert "c.jsonl, which has 30: it will repeat" in caplog.text


def test_a_source_of_nothing(folder, monkeypatch):
    (folder / "blank.jsonl").write_text("\n\n")
    with pytest.raises(ValueError, match=r"blank\.jsonl: holds no record; expected one a row"):
        ExampleStream(data_config(folder, ("a", "blank")), 0)
    with pytest.raises(ValueError, match=r"max_examples=0 of .* leaves no example"):
        JsonlSource("a.jsonl", max_examples=0)
    opened = iter((OpenSource("a", range(BATCH), ""), OpenSource("rest", (), "")))
    monkeypatch.setattr(
        "lco_jax.data.sources.mixture.open_source", lambda *_, **options: next(opened)
    )
    with pytest.raises(ValueError, match="rest holds no example; leave it out"):
        ExampleStream(data_config(folder, "ab"), 0)


def test_negatives_are_taken_as_wanted(folder, prompter):
    for num_negatives, present in ((0, 0), (1, 16), (2, 16)):
        config = data_config(folder, num_negatives=num_negatives)
        loader = ContrastiveLoader(config, MEMORY, prompter, seed=0, num_steps=1)
        ((_, batch, _),) = loader
        assert batch.pool.shape == (2, 2 + num_negatives, 12)
        assert batch.valid[:, :2].all()
        assert batch.valid[:, 2:3].sum() == pytest.approx(present, abs=6 if num_negatives else 0)
        assert not batch.valid[:, 3:].any()
        assert len(set(hashes(batch))) == np.count_nonzero(batch.valid)


def test_division_is_checked(folder, prompter):
    with pytest.raises(
        ValueError, match=r"batch_size=24 is less than encode_chunks=2 times 13 .*at least 26"
    ):
        make_loader(folder, prompter, num_shards=13)


@pytest.mark.parametrize(
    ("size", "chunks", "shards", "ways"),
    [
        (
            5,
            2,
            3,
            "at least 6, or smaller encode_chunks, or fewer data shards (a larger mesh.tensor)",
        ),
        (5, 1, 6, "at least 6, or fewer data shards (a larger mesh.tensor)"),
        (5, 6, 1, "at least 6, or smaller encode_chunks"),
    ],
)
def test_only_what_helps_is_advised(size, chunks, shards, ways):
    with pytest.raises(ValueError, match=re.escape(ways) + "$"):
        check_batch_size(size, chunks, shards)
    for better in ((6, chunks, shards), (size, 1, shards), (size, chunks, 1)):
        if better[1] * better[2] <= better[0]:
            check_batch_size(*better)


def test_errors_of_the_background_reach_the_caller(folder, prompter):
    memory = Memory(row_tokens=(16,))
    with pytest.raises(ValueError, match=r"memory\.row_tokens"):
        list(make_loader(folder, prompter, memory=memory))


def test_prepared_datasets(folder, monkeypatch):
    class Records(list):
        columns = Columns("positive", anchor="anchor", negatives=("negatives",), id="id")

    records = Records(
        {"id": str(i), "anchor": f"d {i}", "positive": f"p {i}", "negatives": ["n"] * (i % 3)}
        for i in range(200)
    )
    asked = []

    def open_dataset(*arguments):
        asked.append(arguments)
        return records

    monkeypatch.setattr("lco_jax.data.sources.open.open_dataset", open_dataset)
    source = TfdsSource("pairs/en-id", "dev", "dir", max_examples=150)
    opened = open_source(source)
    assert asked == [("pairs/en-id", "dev", "dir", None)]
    assert len(opened) == 150 and opened.name == "pairs/en-id:dev"
    assert opened.records[5].id == "5"
    assert [item.text for item in opened.records[5].negatives] == ["n", "n"]
    assert opened.digest == open_source(source).digest
    records[149]["positive"] = "changed"
    assert opened.digest != open_source(source).digest
    mixed = DataConfig((source, JsonlSource(str(folder / "a.jsonl"))), batch_size=BATCH)
    counts = Counter(text[0] for text in texts_of_step(ExampleStream(mixed, 0), 0))
    assert counts == {"d": 12, "a": 12}


def test_read_pairs(folder):
    source = JsonlSource(str(folder / "b.jsonl"))
    assert [pair.anchor.text for pair in read_pairs(source, 3)] == ["b 0", "b 1", "b 2"]
    assert len(read_pairs(source, None)) == len(read_pairs(source, 100)) == 60
    assert len(open_source(JsonlSource(source.path, max_examples=9))) == 9


def test_a_batch_of_one_needs_a_negative(folder, prompter, tmp_path):
    def load(line, **changes):
        (tmp_path / "one.jsonl").write_text(json.dumps(line))
        config = data_config(tmp_path, ["one"], batch_size=1, **changes)
        return ContrastiveLoader(config, Memory(), prompter, seed=0)

    pair = {"anchor": "a", "positive": "b"}
    load({**pair, "negative": "c"})
    for line, changes in ((pair, {}), ({**pair, "negative": "c"}, {"num_negatives": 0})):
        with pytest.raises(ValueError, match=r"learns nothing: .* at least 2 rows"):
            load(line, **changes)
