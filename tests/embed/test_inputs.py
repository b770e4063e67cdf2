"""Whatever form a medium is held in, it is embedded as its file is."""

import base64
import collections
import io
import logging
from pathlib import Path
from types import SimpleNamespace

import datasets
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageOps

from lco_jax.config import MediaConfig
from lco_jax.data.encode.feature_cache import content_hash
from lco_jax.data.encode.processor import Processor
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.kinds import kind_of_content, kind_of_name
from lco_jax.data.records import Item
from lco_jax.embed.embedder import Embedder
from lco_jax.embed.inputs import InputReader
from lco_jax.embed.media_files import write_frames
from lco_jax.embed.one_or_many import as_sequence, is_single
from tests import meshes, tiny
from tests.data import audio_files
from tests.data.media_files import encode, noise, random_image, video_file
from tests.patches import pixels_of

FILES = Path(__file__).parent / "files"
MEDIA = MediaConfig(
    image_min_pixels=784, image_max_pixels=4 * 784, video_min_pixels=784, video_max_pixels=4 * 784
)
WAVE = audio_files.tones(1.5)
FRAMES = np.stack(noise(8, (56, 56)))


@pytest.fixture(scope="module")
def embedder(tmp_path_factory):
    folder = tiny.write(tmp_path_factory.mktemp("omni"), "qwen2_5_omni_thinker", num_layers=1)
    return Embedder(folder.folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file of each kind, all without loss."""
    folder = tmp_path_factory.mktemp("media")
    random_image(1, (56, 28)).save(folder / "cat.png")
    random_image(2, (28, 56)).save(folder / "dog.png")
    random_image(2, (28, 56)).save(folder / "nameless", "PNG")
    (folder / "cat.wav").write_bytes(audio_files.plain(WAVE, subtype="FLOAT"))
    write_frames(FRAMES.transpose(0, 3, 1, 2), 4, folder / "cat")
    return folder


@pytest.fixture
def here(folder, monkeypatch):
    """The working directory is that of the files."""
    monkeypatch.chdir(folder)
    return folder


class Samples:
    """As torchcodec's AudioDecoder."""

    def get_all_samples(self):
        return SimpleNamespace(data=torch.from_numpy(WAVE)[None], sample_rate=16_000.0)


class Shots:
    """As torchcodec's VideoDecoder."""

    metadata = SimpleNamespace(average_fps=4.0)

    def __len__(self):
        return len(FRAMES)

    def __getitem__(self, index):
        return torch.from_numpy(FRAMES[index]).permute(2, 0, 1)

    def get_frames_in_range(self, start, stop):
        return SimpleNamespace(data=torch.stack([self[index] for index in range(start, stop)]))


def image_forms(here):
    image = Image.open(here / "cat.png")
    pixels = np.asarray(image)
    content = (here / "cat.png").read_bytes()
    uri = "data:image/png;base64," + base64.b64encode(content).decode()
    return [
        "cat.png",
        np.str_("cat.png"),
        str(here / "cat.png"),
        f"file://{here}/cat.png",
        uri,
        here / "cat.png",
        content,
        bytearray(content),
        image,
        pixels,
        pixels.astype(np.float32) / 255,
        pixels / 255.0,
        jnp.asarray(pixels),
        torch.from_numpy(pixels.copy()),
        np.dstack([pixels, np.full((28, 56), 255, np.uint8)]),
        {"image": image, "id": np.int64(7)},
        {"image": "cat.png"},
        {"image": here / "cat.png"},
        {"image_path": here / "cat.png"},
        {"image_path": ["cat.png", ""], "text": None},
        {"image": pixels},
        {"image": uri},
        {"image": {"bytes": content, "path": "gone.png"}},
        {"image": {"bytes": None, "path": "cat.png"}},
        {"image": {"image": image, "max_pixels": 4 * 784, "min_pixels": 784}},
        {"role": "user", "content": [{"type": "image", "image": image}]},
        [{"role": "user", "content": [{"type": "image", "url": "cat.png"}]}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": uri}}]}],
    ]


def audio_forms(here):
    content = (here / "cat.wav").read_bytes()
    uri = "data:audio/wav;base64," + base64.b64encode(content).decode()
    waveform = {"array": WAVE, "sampling_rate": 16_000}
    return [
        "cat.wav",
        here / "cat.wav",
        content,
        uri,
        waveform,
        Samples(),
        {"audio": Samples()},
        {"audio": waveform},
        {"audio": {**waveform, "path": "cat.wav"}},
        {"audio": {"array": np.stack([WAVE, WAVE]), "sampling_rate": np.int32(16_000)}},
        {"audio": {"array": np.stack([WAVE, WAVE], axis=1).astype(float), "sampling_rate": 16e3}},
        {"audio_path": "cat.wav"},
        {"audio": io.BytesIO(content).getbuffer()},
        {"role": "user", "content": [{"type": "audio", "audio": "cat.wav"}]},
    ]


def video_forms(here):
    images = [Image.fromarray(frame) for frame in FRAMES]
    return [
        "cat.mkv",
        here / "cat.mkv",
        (here / "cat.mkv").read_bytes(),
        {"video_path": "cat.mkv"},
        {"video": images, "fps": 4},
        {"video": list(FRAMES), "fps": 4.0},
        {"video": FRAMES, "fps": 4},
        {"video": {"video": images, "fps": 4}},
        {"video": {"array": FRAMES, "video_metadata": {"fps": 4}}},
        {"array": images, "video_metadata": {"fps": 4}},
        {"video": "cat.mkv", "fps": 2},
        Shots(),
        {"video": [Shots()]},
        {"role": "user", "content": [{"type": "video", "video": images, "fps": 4}]},
    ]


@pytest.mark.parametrize("forms", [image_forms, audio_forms, video_forms])
def test_every_form_is_the_vector_of_the_file(embedder, here, forms):
    kind = forms.__name__.split("_")[0]
    inputs = forms(here)
    path = embedder.encode(Item(**{f"{kind}s": (str(inputs[0]),)}))
    vectors = embedder.encode(inputs)
    np.testing.assert_allclose(vectors, np.broadcast_to(path, vectors.shape), atol=1e-5)
    # A single input gives a single vector, which is not that of its name.
    np.testing.assert_allclose(embedder.encode(inputs[0]), path, atol=1e-5)
    assert np.abs(embedder.encode({"text": inputs[0]}) - path).max() > 1e-2


def test_mixtures_are_those_of_paths(embedder, here):
    image = Image.open("cat.png")
    wanted = Item("words", ("cat.png", "dog.png"), ("cat.wav",), ("cat.mkv",))
    wave = {"array": WAVE, "sampling_rate": 16_000}
    forms = [
        wanted,
        {
            "text": "words",
            "image": [image, np.asarray(Image.open("dog.png"))],
            "audio": wave,
            "video": FRAMES,
            "fps": 4,
        },
        {
            "role": "user",
            "content": [
                {"type": "image", "image": image},
                {"type": "image", "image": Path("nameless")},
                {"type": "video", "video": list(FRAMES), "fps": 4},
                {"type": "audio", "audio": wave},
                {"type": "text", "text": "words"},
            ],
        },
        {"text": "words", "image": ["cat.png", Path("dog.png")], "audio": "cat.wav",
         "video": ["cat.mkv"]},
    ]  # fmt: skip
    vectors = embedder.encode(forms)
    np.testing.assert_allclose(vectors, np.broadcast_to(vectors[0], vectors.shape), atol=1e-5)


MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV",
         "LAB", "I;16", "I;16B", "I")  # fmt: skip


def read(embedder, value):
    """What the vision tower is given of one input."""
    (item,) = InputReader(set()).items([value])
    (encoded,) = embedder.processor.encode([item])
    return pixels_of(encoded.visuals[0].content)


@pytest.mark.parametrize("mode", MODES)
def test_images_of_any_mode_are_read(embedder, mode):
    rgb = random_image(0, (40, 30))
    if mode.startswith("I"):
        kind = ">u2" if mode == "I;16B" else np.int32 if mode == "I" else np.uint16
        image = Image.fromarray((np.asarray(rgb.convert("L")).astype(kind) << 8).astype(kind))
        wanted = rgb.convert("L").convert("RGB")
    elif mode in ("PA", "La", "RGBa"):
        image = rgb.convert({"PA": "P", "La": "L", "RGBa": "RGB"}[mode]).convert(
            {"PA": "PA", "La": "LA", "RGBa": "RGBA"}[mode]
        )
        image = image if mode == "PA" else image.convert(mode)
        wanted = rgb.convert("L" if mode == "La" else "P" if mode == "PA" else "RGB").convert("RGB")
    elif mode == "LAB":
        image = Image.merge("LAB", [Image.new("L", (40, 30), level) for level in (137, 128, 128)])
        wanted = Image.new("RGB", (40, 30), (128, 128, 128))
    elif mode == "RGBX":
        image, wanted = rgb.convert("RGBX"), rgb
    else:
        image = rgb.convert(mode)
        wanted = image.convert("RGB")
    patches = read(embedder, image)
    np.testing.assert_allclose(patches, read(embedder, wanted), atol=0.03 if mode == "LAB" else 0)


@pytest.mark.parametrize("name", ["exif6.jpg", "cmyk.jpg"])
def test_images_of_pillow_are_those_of_their_files(embedder, name):
    wanted = read(embedder, {"image_path": str(FILES / name)})
    for held in (Image.open(FILES / name), (FILES / name).read_bytes(), FILES / name):
        np.testing.assert_array_equal(read(embedder, held), wanted)
    copied = Image.open(FILES / name).copy()
    np.testing.assert_array_equal(read(embedder, copied), wanted)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_of_pillow_are_upright(embedder, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    random_image(0, (56, 28)).save(tmp_path / "a.png", exif=exif)
    held = Image.open(tmp_path / "a.png")
    np.testing.assert_array_equal(
        read(embedder, held), read(embedder, {"image_path": str(tmp_path / "a.png")})
    )
    upright = ImageOps.exif_transpose(held)
    np.testing.assert_array_equal(
        read(embedder, {"video": [held, held]}), read(embedder, {"video": [upright, upright]})
    )


def test_what_pillow_cannot_read_is_named(embedder, tmp_path):
    (tmp_path / "cut.jpg").write_bytes((FILES / "exif6.jpg").read_bytes()[:2000])
    for inputs, message in [
        (
            [Image.new("F", (9, 9), 0.5)],
            r"input 0 \(a Pillow .* no fixed range; save 8 or 16 bits$",
        ),
        (["a", {"image": Image.open(tmp_path / "cut.jpg")}], r"input 1\.image .*truncated"),
        ([Image.new("L", (1, 300))], "at most 200 to 1"),
    ]:
        with pytest.raises(MediaError, match=message):
            embedder.encode(inputs)
    closed = Image.open(FILES / "exif6.jpg")
    closed.close()
    with pytest.raises(MediaError, match="cannot be decoded"):
        embedder.encode(closed)


def test_media_ask_for_limits_of_their_own(embedder, folder):
    large = random_image(0, (280, 280))
    small = embedder.processor.media
    processor = Processor(
        embedder._base_folder, embedder.config, media=MediaConfig(image_max_pixels=25 * 784)
    )
    wide = SimpleNamespace(processor=processor)
    assert small.image_max_pixels < 25 * 784
    wanted = read(wide, large)
    for form in (
        {"image": large, "max_pixels": 25 * 784},
        {"image": {"image": large, "max_pixels": np.int64(25 * 784)}},
        {"role": "user", "content": [{"type": "image", "image": large, "max_pixels": 25 * 784}]},
    ):
        np.testing.assert_array_equal(read(embedder, form), wanted)
    assert len(read(embedder, {"image": large, "max_pixels": 784})) == 4
    assert len(read(embedder, {"image": random_image(0, (28, 28)), "min_pixels": 16 * 784})) == 64
    path = str(folder / "cat.mkv")  # 8 frames in 2 seconds
    sides = 4  # patches a frame
    assert len(read(embedder, {"video": path, "max_pixels": 784})) == 2 * sides
    assert len(read(embedder, {"video": path, "fps": 4, "max_pixels": 784})) == 4 * sides
    assert len(read(embedder, {"video": path, "fps": 4, "max_frames": 2, "max_pixels": 784})) == 4


def test_parts_of_clips_are_those_of_shorter_files(embedder, folder, tmp_path):
    write_frames(FRAMES[2:6].transpose(0, 3, 1, 2), 4, tmp_path / "part")
    wanted = read(embedder, {"video_path": str(tmp_path / "part.mkv"), "fps": 4})
    for form in (
        {"video": str(folder / "cat.mkv"), "fps": 4, "start": 0.5, "end": 1.5},
        {"video": {"path": str(folder / "cat.mkv"), "video_start": 0.5, "video_end": 1.5,
                   "fps": 4}},
        {"video": {"video": list(FRAMES), "start": 0.5, "end": 1.5, "fps": 4}},
    ):  # fmt: skip
        np.testing.assert_array_equal(read(embedder, form), wanted)
    with pytest.raises(MediaError, match=r"lasts 2\.0 seconds; it has no frame between start=3"):
        read(embedder, {"video": str(folder / "cat.mkv"), "start": 3})

    def heard(value):
        (item,) = InputReader(set()).items([value])
        (encoded,) = embedder.processor.encode([item])
        return encoded.audios[0].content.chunks

    for kind, content in (
        ("wav", (folder / "cat.wav").read_bytes()),
        ("flac", audio_files.plain(WAVE, "FLAC")),
    ):
        (tmp_path / f"a.{kind}").write_bytes(content)
        samples = WAVE[4800:16_000]
        wave = {"array": samples, "sampling_rate": 16_000}
        part = heard({"audio_path": str(tmp_path / f"a.{kind}"), "start": 0.3, "end": 1})
        np.testing.assert_allclose(part, heard(wave), atol=1e-5 if kind == "wav" else 0.02)
    whole = {"array": WAVE, "sampling_rate": 16_000}
    cut = heard({"audio": {**whole, "start": 0.3, "end": 1}})
    np.testing.assert_array_equal(cut, heard(wave))
    mp4 = audio_files.track("mp4", "aac", WAVE, with_video=True)
    (tmp_path / "a.mp4").write_bytes(mp4)
    decoded = heard({"audio_path": str(tmp_path / "a.mp4")})
    late = heard({"audio_path": str(tmp_path / "a.mp4"), "start": 1.0})
    assert late.shape == heard({"array": WAVE[16_000:], "sampling_rate": 16_000}).shape
    assert decoded.shape == heard(whole).shape
    with pytest.raises(MediaError, match="ends before start=9"):
        heard({"audio_path": str(tmp_path / "a.wav"), "start": 9})


def test_strings_that_only_look_like_paths_stay_texts(embedder, here, caplog):
    texts = ["gone.png", "also/gone.mp4", "https://example.org/a.png", "a picture of cat.jpg"]
    reader = InputReader(notices := set())
    with caplog.at_level(logging.WARNING, "lco_jax"):
        items = reader.items([*texts, "x.png\n", "cat.png?", "data:image/png is a type", "a.b"])
    assert [item.has_media for item in items] == [False] * 8
    assert len(caplog.records) == 1 and "'gone.png' is embedded as a text" in caplog.text
    with caplog.at_level(logging.WARNING, "lco_jax"):
        InputReader(notices).items(["gone.wav"])
    assert len(caplog.records) == 1
    assert not InputReader(set()).items([{"text": "cat.png"}])[0].has_media
    assert not InputReader(set()).items([Item("cat.png")])[0].has_media


BAD = [
    (3, r"input 0 is of type int \(3\), expected a text, a path"),
    (None, "input 0 is of type NoneType"),
    (object(), "input 0 is of type object"),
    ({"image": 3}, r"input 0\.image is of type int"),
    ({"audio": np.zeros(9, np.float32)}, "array without its rate"),
    ({"array": np.zeros(9)}, "without 'sampling_rate'"),
    ({"array": np.zeros(9), "sampling_rate": 0}, "sampling_rate=0 is not"),
    ({"array": np.zeros((9, 9)), "sampling_rate": 8000}, r"shape \(9, 9\)"),
    ({"array": np.zeros(9, np.uint8), "sampling_rate": 8000}, "of uint8, expected floats"),
    ({"array": np.array([-9e3, 3e4]), "sampling_rate": 8000}, "-9000 to 30000, .* by 32768"),
    ({"array": np.array([0, np.nan]), "sampling_rate": 8000}, "expected full scale at 1"),
    ({"array": np.zeros(9), "sampling_rate": 8000, "text": "a"}, "unknown key 'text'"),
    (np.zeros((4, 5, 5, 3), np.uint8), r"input 0 is an array of shape \(4, 5, 5, 3\)"),
    (np.zeros(9, np.float32), r"say what it is: \{'array'"),
    (np.zeros((3, 8, 8), np.uint8), r"transpose\(1, 2, 0\)"),
    (np.full((8, 8, 3), 255.0), r"floats from 255 to 255, expected 0 to 1"),
    (np.full((8, 8, 3), np.nan), "expected 0 to 1"),
    (np.zeros((8, 8, 3), np.int32), "array of int32, expected uint8"),
    (b"no media at all", "input 0: a file of 15 bytes: no image, audio or video"),
    (b"", "the file is empty"),
    ([Image.new("L", (9, 9))] * 2, r"input 0 is a list; say what it is"),
    (["a", "b"], "input 0 is a list"),
    ({"image": Image.new("L", (9, 9)), "fps": 2}, r"input 0\.fps is for video only"),
    ({"image": {"path": "a.png", "start": 2}}, r"start is for audio and video only"),
    ({"video": "a.mp4", "start": 3, "end": 2}, "nothing lies between"),
    ({"video": "a.mp4", "fps": 0}, "fps=0.0 must be positive"),
    ({"video": np.zeros((2, 9, 9, 3), np.uint8), "fps": 0}, "video: fps=0.0 must be positive"),
    ({"video": np.zeros((2, 9, 9, 3), np.uint8), "fps": np.nan}, "fps=nan must be positive"),
    ({"video": "a.mp4", "fps": "2"}, r"fps is of type str \(\"2\"\), expected a number"),
    ({"video": "a.mp4", "max_frames": 2.5}, "expected a whole number"),
    ({"image": "a.png", "min_pixels": 900, "max_pixels": 800}, "more than max_pixels=800"),
    ({"video": [], "text": ""}, "input 0 is empty"),
    ({"image": {"url": "a.png", "image": "b.png"}}, "holds 2 media"),
    ({"image": {"src": "a.png"}}, "unknown key 'src'"),
    ({"picture": "a.png"}, "unknown key 'picture'"),
    ({"text": ["a", "b"]}, r"input 0\.text is of type list"),
    ({"text": "a", "id": 2.5}, r"input 0\.id is of type float"),
    ({"image": "data:image/png;base64,@@"}, r"input 0\.image: data:.* no data URI"),
    ("file://host/cat.png", "input 0: file://host/cat.png: is on the host"),
    ({"role": "assistant", "content": "a"}, r"messages of \['assistant'\]"),
    ({"role": "user", "content": [{"type": "pdf"}]}, r"content\[0\] is of type dict"),
    ({"role": "user", "content": []}, "input 0 is empty"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=lambda x: x if isinstance(x, str) else "")
def test_anything_else_is_named(value, message):
    with pytest.raises(ValueError, match=message):
        InputReader(set()).items([value])


def test_web_addresses_and_strange_paths_are_refused_when_read(embedder):
    for address, message in [
        ("https://example.org/a.png", "web addresses are not fetched"),
        ("ftp://example.org/a.png", "not read"),
        ("a\0.png", "no path"),
        ("file://host/a.png", "on the host host"),
    ]:
        with pytest.raises(MediaError, match=message):
            embedder.encode({"image_path": address} if "file" not in address else address)


def test_errors_of_media_say_which_input(embedder, tmp_path):
    kept = Embedder(
        embedder._base_folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32",
        cache=tmp_path / "cache",
    )  # fmt: skip
    cut = (FILES / "exif6.jpg").read_bytes()[:2000]
    uri = "data:image/jpeg;base64," + base64.b64encode(cut).decode()
    texts = ["a", "b", "a", "c"]
    for value, message in [
        (cut, "^input 4: a file of 2000 bytes"),
        ({"image_path": uri}, r"^input 4: data:image/jpeg;base64,.* \(\d+ characters\)"),
        (
            {"image_path": str(tmp_path / "gone.png"), "id": "q7"},
            "^input 4: item q7: .*no such file",
        ),
        ({"image": Image.new("F", (9, 9))}, r"^input 4\.image \(a Pillow image"),
    ]:
        for model, options in [(embedder, {}), (embedder, {"batch_size": 3}), (kept, {})]:
            with pytest.raises(MediaError, match=message):
                model.encode([*texts, value], **options)
        errors = {}
        embedder.encode([*texts, value], errors=errors)
        assert list(errors) == [4]


def test_frames_of_different_sizes_and_without_a_rate(embedder):
    with pytest.raises(MediaError, match=r"frame 1 has 9 x 9 pixels, others have 8 x 8"):
        embedder.encode({"video": [Image.new("L", (8, 8)), Image.new("L", (9, 9))]})
    # Frames without a rate are those that are wanted.
    kept = read(embedder, {"video": FRAMES, "max_pixels": 784})
    assert len(kept) == len(FRAMES) // 2 * 4


def test_what_is_one_input_and_what_are_many():
    message = {"role": "user", "content": "a"}
    for one in ("a", b"a", Path("a"), Item("a"), {"text": "a"}, message, [message], np.str_("a"),
                np.array("a"), Image.new("L", (1, 1)), np.zeros((2, 2, 3), np.uint8)):  # fmt: skip
        assert is_single(one) and len(as_sequence(one)) == 1
    for many in (["a"], ("a", "b"), [[message]], np.array(["a", "b"]), np.array(["a"], object),
                 iter(["a"]), [], [message, "a"]):  # fmt: skip
        assert not is_single(many)
    assert as_sequence(np.array(["a", "b"])) == ["a", "b"] and as_sequence(np.array("a")) == ["a"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (pd.DataFrame({"text": ["a"], "id": [1]}), r"DataFrame: .*df\['text'\]\.tolist\(\)\) or"),
        ({"a", "b"}, "set: it has no order"),
        (frozenset("ab"), "frozenset: it has no order"),
        ({"a": 1}.keys(), "dict_keys: it is a view"),
        ({"a": "b"}.values(), "dict_values: it is a view"),
        (io.BytesIO(b"a\nb"), r"BytesIO: it is an open file; give file\.read"),
        (io.StringIO("a\nb"), "StringIO: it is an open file"),
    ],
    ids=lambda x: type(x).__name__,
)
def test_what_holds_inputs_in_no_order_of_theirs_is_refused(inputs, message):
    with pytest.raises(ValueError, match=message):
        as_sequence(inputs)


def test_sequences_of_other_libraries():
    rows = datasets.Dataset.from_dict({"text": ["a", "b"]})
    table = pd.DataFrame({"text": ["a", "b"]}, index=["x", "y"])
    for many in (collections.deque("ab"), (x for x in "ab"), iter({"a": 0, "b": 1}), rows["text"],
                 table["text"], pd.Index(["a", "b"]), table["text"].array):  # fmt: skip
        assert not is_single(many) and as_sequence(many) == ["a", "b"]
    assert as_sequence(rows) == table.to_dict("records") == [{"text": "a"}, {"text": "b"}]


def test_kinds_of_files():
    for content, kind in [
        (encode(random_image(0), "WEBP"), "image"),
        (audio_files.mp3(WAVE), "audio"),
        (audio_files.plain(WAVE, "OGG"), "audio"),
        (audio_files.track("mp4", "aac", WAVE), "audio"),
        (video_file("mp4", noise(2)), "video"),
        (video_file("webm", noise(2), codec="libvpx"), "video"),
    ]:
        assert kind_of_content(content) == kind
    names = {"A.JPG": "image", "a.b.opus": "audio", "/x/y.Mkv": "video", "mp4": None, "a.ts": None}
    assert {name: kind_of_name(name) for name in names} == names


def test_vectors_of_what_is_in_memory_are_kept(embedder, tmp_path, monkeypatch):
    kept = Embedder(
        embedder._base_folder, mesh=meshes.make((1, 1, 1)), media=MEDIA, dtype="float32",
        cache=tmp_path,
    )  # fmt: skip
    image = random_image(1, (56, 28))
    inputs = [image, {"image": image, "max_pixels": 784}, "a text"]
    vectors = kept.encode(inputs)
    np.testing.assert_allclose(vectors, embedder.encode(inputs), atol=1e-5)
    monkeypatch.setattr(kept._encoder, "encode", None)
    np.testing.assert_array_equal(kept.encode([*inputs, image.copy()])[:3], vectors)


def test_contents_in_memory_have_hashes_of_their_own():
    def key(value):
        (item,) = InputReader(set()).items([value])
        (source,) = (*item.images, *item.audios, *item.videos)
        return content_hash("", source)

    image = random_image(0)
    values = [
        image,
        random_image(1),
        {"image": image, "max_pixels": 784},
        {"array": WAVE, "sampling_rate": 16_000},
        {"array": WAVE, "sampling_rate": 8_000},
        {"video": FRAMES, "fps": 2},
        {"video": FRAMES, "fps": 1},
    ]
    assert len({key(value) for value in values}) == len(values)
    assert key(image) == key(image.copy()) == key(np.asarray(image))
