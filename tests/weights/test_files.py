"""Safetensors: against the reference implementation, and damaged in every way."""

import errno
import json
import os
import resource
import shutil
import struct
import threading

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch

from lco_jax.weights.files import SafetensorsFile, SafetensorsFolder, TensorSpec
from lco_jax.weights.writer import SafetensorsWriter

TENSORS = {
    "half": torch.randn(3, 5).to(torch.bfloat16),
    "single": torch.randn(4, 2, 3),
    "double": torch.randn(2).to(torch.float64),
    "small": torch.randn(7).to(torch.float8_e4m3fn),
    "integer": torch.arange(9),
    "truth": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}


def bits(value) -> bytes:
    if isinstance(value, torch.Tensor):
        return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return value.tobytes()


@pytest.fixture
def folder(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "model.safetensors", {"format": "pt"})
    return tmp_path


@pytest.fixture
def shards(tmp_path):
    """Two files and their index."""
    places = {"model-00001-of-00002.safetensors": ["half", "single"]}
    places["model-00002-of-00002.safetensors"] = ["integer"]
    for place, names in places.items():
        safetensors.torch.save_file({name: TENSORS[name] for name in names}, tmp_path / place)
    weight_map = {name: place for place, names in places.items() for name in names}
    write_index(tmp_path, weight_map)
    return tmp_path


def write_index(folder, weight_map):
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


# ------------------------------------------------------------------------------------ reading


def test_reads_what_the_reference_wrote(folder):
    source = SafetensorsFolder(folder)
    assert source.specs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert source.specs[name].shape == tuple(tensor.shape)
        assert source.view(name).shape == tuple(tensor.shape)
        assert bits(source.view(name)) == bits(tensor)
        assert not source.view(name).flags.writeable
    assert source.specs["half"].dtype == ml_dtypes.bfloat16


def test_reads_shards(shards):
    source = SafetensorsFolder(shards)
    assert sorted(source.specs) == ["half", "integer", "single"]
    for name in source.specs:
        assert bits(source.view(name)) == bits(TENSORS[name])


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (-1, "expected {size} bytes by its header, found {kept}"),
        (200, "expected a header of {header} bytes, found 192"),
        (5, "expected at least 8 bytes, found 5"),
        (0, "expected at least 8 bytes, found 0"),
    ],
)
def test_truncated(folder, kept, message):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    kept %= len(content)
    os.truncate(file, kept)
    message = message.format(size=len(content), header=header, kept=kept)
    with pytest.raises(ValueError, match=rf"model\.safetensors: {message}"):
        SafetensorsFolder(folder)


def test_trailing_bytes(folder):
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"more")
    with pytest.raises(ValueError, match=r"expected .* bytes by its header, found"):
        SafetensorsFolder(folder)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"no json", "the header is not JSON: Expecting value: line 1 column 1"),
        (b"[1, 2]", "no safetensors header"),
        (b'{"x": {"dtype": "F32", "shape": [1]}}', "data_offsets"),
        (b'{"x": {"dtype": "F13", "shape": [1], "data_offsets": [0, 4]}}', "F13"),
        (b'{"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', r"shape\.0=-1"),
        (b'{"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "8 bytes"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "4 to 8"),
        (b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}', r"data_offsets=\[0\]"),
    ],
)
def test_corrupt_header(tmp_path, header, message):
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(ValueError, match=message):
        SafetensorsFile(file)


def test_header_limit(tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(struct.pack("<Q", 10**9) + b"{}")
    with pytest.raises(ValueError, match="1000000000 bytes, at most 16777216"):
        SafetensorsFile(file)


def test_missing_shard(shards):
    (shards / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="1 are missing: model-00002-of-00002"):
        SafetensorsFolder(shards)


def test_index_and_files_disagree(shards):
    first, second = sorted(path.name for path in shards.glob("*.safetensors"))
    write_index(shards, {"half": first, "absent": first, "integer": second})
    with pytest.raises(ValueError, match=r"only in the index \['absent'\].*file \['single'\]"):
        SafetensorsFolder(shards)


def test_index_without_map(shards):
    (shards / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match="weight_map"):
        SafetensorsFolder(shards)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FileNotFoundError, match="convert them to safetensors"):
        SafetensorsFolder(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither"):
        SafetensorsFolder(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        SafetensorsFolder(tmp_path / "absent")


# ------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("max_shard_bytes", [10**6, 100, 1])
def test_the_reference_reads_what_we_wrote(folder, tmp_path, max_shard_bytes):
    source, out = SafetensorsFolder(folder), tmp_path / "out"
    out.mkdir()
    with SafetensorsWriter(out, source.specs, max_shard_bytes=max_shard_bytes) as writer:
        names = list(source.specs)[::-1]
        threads = [
            threading.Thread(target=writer.write, args=(name, source.view(name))) for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    files = sorted(out.glob("*.safetensors"))
    if max_shard_bytes == 10**6:
        assert [path.name for path in files] == ["model.safetensors"]
    else:
        index = json.loads((out / "model.safetensors.index.json").read_text())
        total = sum(spec.num_bytes for spec in source.specs.values())
        assert index["metadata"]["total_size"] == total
        assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    read = {}
    for file in files:
        read |= (part := safetensors.torch.load_file(file))
        stored = [part[name].nbytes for name in part]
        assert sum(stored) <= max_shard_bytes or len(stored) == 1 or 0 in stored
    assert {name: bits(value) for name, value in read.items()} == {
        name: bits(value) for name, value in TENSORS.items()
    }
    assert not list(out.glob(".*"))
    again = SafetensorsFolder(out)
    assert again.specs == source.specs


def test_error_leaves_no_weights(tmp_path):
    specs = {"x": TensorSpec((2,), np.dtype(np.float32))}
    with (
        pytest.raises(RuntimeError, match="stop"),
        SafetensorsWriter(tmp_path, specs, max_shard_bytes=10**6) as writer,
    ):
        writer.write("x", np.zeros(2, np.float32))
        raise RuntimeError("stop")
    assert not list(tmp_path.iterdir())


def test_unwritten_tensors(tmp_path):
    specs = {name: TensorSpec((2,), np.dtype(np.float32)) for name in "xy"}
    with (
        pytest.raises(ValueError, match=r"1 tensors were not written: \['y'\]"),
        SafetensorsWriter(tmp_path, specs, max_shard_bytes=10**6) as writer,
    ):
        writer.write("x", np.zeros(2, np.float32))
    assert not list(tmp_path.iterdir())


def test_other_shape_than_announced(tmp_path):
    specs = {"x": TensorSpec((2,), np.dtype(np.float32))}
    with (
        pytest.raises(ValueError, match="announced"),
        SafetensorsWriter(tmp_path, specs, max_shard_bytes=10**6) as writer,
    ):
        writer.write("x", np.zeros(3, np.float32))


def test_existing_weights_are_kept(folder):
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match=r"already holds model\.safetensors"):
        SafetensorsWriter(folder, {}, max_shard_bytes=10**6)
    assert (folder / "model.safetensors").read_bytes() == before


def test_too_little_space(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7))
    specs = {"x": TensorSpec((2,), np.dtype(np.float32))}
    with pytest.raises(OSError, match="8 bytes of weights do not fit into the 7 bytes"):
        SafetensorsWriter(tmp_path, specs, max_shard_bytes=10**6)


def test_disk_that_fills_up_while_writing(tmp_path):
    specs = {"x": TensorSpec((10**6,), np.dtype(np.float32))}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limit[1]))
    try:
        with (
            pytest.raises(OSError) as caught,
            SafetensorsWriter(tmp_path, specs, max_shard_bytes=10**9) as writer,
        ):
            writer.write("x", np.zeros(10**6, np.float32))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert caught.value.errno == errno.EFBIG
    assert f"cannot write {tmp_path}" in str(caught.value)
    assert "4,000,000 bytes are needed" in str(caught.value)
    assert not list(tmp_path.iterdir())
