"""Many images in few programs, files that mix kinds, and damaged media."""

import json

import numpy as np
import pytest
from PIL import Image

from lco_jax.config import DataConfig, JsonlSource, MediaConfig, Memory
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.errors import MediaError
from lco_jax.data.records import Item
from lco_jax.embed.embed_file import embed_file
from lco_jax.embed.embedder import Embedder
from lco_jax.models.config import read_config
from lco_jax.objectives.loaders import ContrastiveLoader
from tests import meshes, tiny
from tests.data.media_files import cut, encode, noise, random_image, video_file

MEDIA = MediaConfig(
    image_max_pixels=1280 * 28 * 28, video_min_pixels=4 * 784, video_max_pixels=16 * 784
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("checkpoint"), "qwen2_5_vl")


@pytest.fixture(scope="module")
def embedder(checkpoint):
    return Embedder(checkpoint.folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32")


@pytest.mark.slow
def test_500_images_of_200_sizes_take_as_many_programs_as_there_are_rows(checkpoint, monkeypatch):
    rng = np.random.default_rng(0)
    sizes = rng.integers(28, 320, (200, 2)).tolist()
    # Flat images: their pixels are not what is tested.
    items = [
        Item(images=(encode(Image.new("L", tuple(sizes[n % 200]), n % 256), "PNG"),))
        for n in range(500)
    ]
    embedder = Embedder(
        checkpoint.folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32"
    )
    before = embedder._encoder.num_programs
    vectors = embedder.encode(items)
    assert np.isfinite(vectors).all()
    assert embedder._encoder.num_programs - before <= len(Memory().frame_rows)
    assert embedder._encoder.share_real_patches >= 0.85


@pytest.mark.parametrize("num_small", [3, 90])
def test_images_of_all_sizes_share_batches(checkpoint, num_small):
    small = [Image.new("L", (140, 140), n) for n in range(num_small)]
    large = [Image.new("L", (400, 400), n) for n in range(2)]
    embedder = Embedder(
        checkpoint.folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32"
    )
    items = as_items([*small, *large])
    batches = list(embedder._encoder._feed(strict=True)._batches(items, {}))
    assert len({batch.media.vision.frames.shape for batch, _ in batches}) == 1
    chosen = np.concatenate([indices for _, indices in batches])
    assert sorted(chosen[chosen >= 0]) == list(range(len(items)))


def test_an_image_that_fits_no_row_of_patches_is_an_error_of_its_item(embedder, monkeypatch):
    monkeypatch.setattr(embedder._encoder, "memory", Memory(frame_rows=(256,)))
    errors = {}
    items = as_items([Image.new("L", (60, 60)), Image.new("L", (600, 600))])
    vectors = embedder.encode(items, errors=errors)
    assert "does not fit into rows of 256" in str(errors.pop(1)) and not errors
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0])


def as_items(images):
    return [Item(images=(encode(image, "PNG"),)) for image in images]


def test_images_of_pillow_and_paths_are_inputs(embedder, tmp_path):
    image = random_image(3, (70, 50))
    image.save(tmp_path / "a.png")
    vectors = embedder.encode([image, {"image_path": str(tmp_path / "a.png")}])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert embedder.supports("image") and not embedder.supports("audio")


def test_a_file_of_all_kinds_with_bad_lines(embedder, tmp_path):
    random_image(0, (60, 40)).save(tmp_path / "a.png")
    random_image(1, (60, 40)).save(tmp_path / "b.jpg")
    (tmp_path / "c.mp4").write_bytes(video_file("mp4", noise(6, (64, 48)), 4, size=(64, 48)))
    (tmp_path / "d.gif").write_bytes(
        encode(random_image(2), "GIF", save_all=True, append_images=[random_image(3)])
    )
    (tmp_path / "broken.png").write_bytes(cut(encode(random_image(4), "PNG"), 0.5))
    lines = [
        "a text",
        {"image_path": "a.png"},
        {"image_path": "broken.png", "id": "damaged"},
        {"text": "with words", "image_path": ["a.png", "b.jpg"]},
        {"txt": "typing error"},
        {"video_path": "c.mp4"},
        {"video_path": "d.gif", "text": "moving"},
        {"image_path": "absent.png"},
    ]
    source, output = tmp_path / "items.jsonl", tmp_path / "out.npy"
    source.write_text("\n".join(map(json.dumps, lines)))
    count, errors = embed_file(embedder, str(source), str(output))
    assert count == len(lines) and sorted(errors) == [2, 4, 7]
    assert "damaged" in errors[2] and "items.jsonl:5" in errors[4] and "absent.png" in errors[7]
    vectors = np.load(output)
    good = [index for index in range(len(lines)) if index not in errors]
    assert np.isnan(vectors[sorted(errors)]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[good], axis=1), 1, atol=1e-5)
    folder = str(tmp_path) + "/"
    alone = embedder.encode([{"image_path": folder + "a.png"}, "a text"])
    np.testing.assert_allclose(vectors[[1, 0]], alone, atol=1e-5)
    listed = (tmp_path / "out.npy.errors.jsonl").read_text().splitlines()
    assert [json.loads(line)["item"] for line in listed] == [2, 4, 7]


def test_training_refuses_damaged_media_or_replaces_their_examples(checkpoint, tmp_path):
    random_image(0).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    lines = []
    for index in range(16):
        name = "bad.png" if index in (3, 7) else "good.png"
        negative = {"image_path": "bad.png"} if index == 5 else {"text": f"not {index}"}
        lines.append({
            "anchor": {"image_path": name, "text": f"item {index}"},
            "positive": f"positive {index}",
            "negative": negative,
        })  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def load(on_error):
        media = MediaConfig(on_error=on_error)
        processor = Processor(checkpoint.folder, read_config(checkpoint.folder), media=media)
        data = DataConfig((JsonlSource(str(tmp_path / "t.jsonl")),), batch_size=16, media=media)
        loader = ContrastiveLoader(data, Memory(), processor, seed=0, num_steps=2)
        return list(loader)

    with pytest.raises(MediaError, match=r"bad\.png: no image of a known .*on_error to skip"):
        load("raise")
    for _, batch, stats in load("skip"):
        assert stats.unreadable == 3
        assert batch.valid[:, :2].all()  # replaced
        assert 1 <= np.count_nonzero(~batch.valid[:, 2]) <= 3  # left out, also of a replacement
        assert 0 < stats.real_patches <= 1
    first, again = load("skip"), load("skip")
    for (_, one, _), (_, other, _) in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
