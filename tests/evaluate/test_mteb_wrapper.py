"""The profile `mteb` against mteb's own LCOEmbedding: tokens, positions and vectors are its."""

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from mteb.models.modality_collators import FramesCollator

from lco_jax.config import MediaConfig
from lco_jax.data.encode.wrapper_media import wrapper_media
from lco_jax.data.media.config import VideoConfig
from lco_jax.data.media.video import sample_indices
from lco_jax.embed.embedder import Embedder
from lco_jax.evaluate.mteb_adapter import MtebEncoder, _set_collator, batch_items
from tests import meshes, tiny
from tests.evaluate import wrapper
from tests.export import runs
from tests.export.test_media import STAND_IN
from tests.tokenizers import name_media_tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapper")
    tiny.write(folder, "qwen2_5_omni_thinker", num_layers=1)
    name_media_tokens(folder)
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "Qwen2_5OmniProcessor",
        "feature_size": 128,
        "chunk_length": 300,
        "return_attention_mask": True,
        "min_pixels": wrapper.MIN_PIXELS,
        "max_pixels": wrapper.MAX_PIXELS,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="module")
def theirs(folder):
    paths = [str(Path(__file__).parents[2])]
    if importlib.util.find_spec("torchvision") is None:
        paths.append(str(STAND_IN))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, wrapper.__file__, str(folder)], env=env, check=True)
    with np.load(folder / "wrapper.npz") as found:
        return dict(found)


@pytest.fixture(scope="module")
def embedder(folder):
    return Embedder(folder, profile="mteb", dtype="float32", mesh=meshes.make((1, 1, 1)))


@pytest.mark.parametrize("kind", wrapper.rows())
def test_tokens_positions_and_vectors_are_those_of_the_wrapper(
    embedder, theirs, kind, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    encoder = MtebEncoder(embedder)
    vectors = encoder.encode(wrapper.loader(kind))
    given = wrapper.loader(kind)
    _set_collator(given)
    batches = [batch_items(batch, tmp_path / str(i), "") for i, batch in enumerate(given)]
    items = [item for batch in batches for item in batch]
    head = embedder.processor.head
    for index, encoded in enumerate(embedder.processor.encode(items)):
        expected = theirs[f"{kind}/{index}"]
        assert [*head, *encoded.tokens] == expected[:, 0].tolist()
        own = encoded.positions
        if own is None:
            own = np.repeat(np.arange(len(encoded.tokens))[:, None], 3, axis=1)
        assert (len(head) + own).tolist() == expected[len(head) :, 1:].tolist()
    np.testing.assert_allclose(vectors, theirs[f"{kind}/vectors"], atol=1e-4)


def test_frames_of_any_file_are_those_of_the_collator():
    config = VideoConfig(max_frames=64, min_frames=1, whole_patches=False)
    for num_frames in (1, 2, 3, 7, 29, 30, 100, 1500):
        for fps in (0.5, 1.0, 8.0, 25.0):
            asked: list[list[int]] = []
            film = types.SimpleNamespace(
                metadata=types.SimpleNamespace(
                    num_frames=num_frames, end_stream_seconds=num_frames / fps
                ),
                get_frames_at=lambda indices, asked=asked: (
                    asked.append(indices) or types.SimpleNamespace(data=None)
                ),
            )
            FramesCollator.resample_video(film, fps=2.0, max_frames=64)
            assert sample_indices(num_frames, fps, config).tolist() == asked[0]


def test_a_run_has_its_own_sizes_unless_the_profile_is_asked_for(folder):
    own = MediaConfig(image_max_pixels=8 * 28 * 28, video_max_frames=6)
    run = runs.write(folder.parent / "run", folder, media=own)
    assert Embedder(run).processor.media == own
    asked = Embedder(run, profile="mteb").processor.media
    assert (asked.image_min_pixels, asked.image_max_pixels) == (
        wrapper.MIN_PIXELS,
        wrapper.MAX_PIXELS,
    )
    assert asked.video_max_frames == 64


def test_bounds_in_every_place_where_a_checkpoint_may_have_them(tmp_path):
    def bounds(**files):
        for file in tmp_path.iterdir():
            file.unlink()
        for name, content in files.items():
            (tmp_path / f"{name}_config.json").write_text(json.dumps(content))
        media = wrapper_media(tmp_path)
        return media.image_min_pixels, media.image_max_pixels

    default = MediaConfig()
    assert bounds() == (default.image_min_pixels, default.image_max_pixels)
    assert bounds(preprocessor={"max_pixels": 12_845_056}) == (3136, 12_845_056)
    size = {"shortest_edge": 4000, "longest_edge": 5000}
    assert bounds(preprocessor={"size": size}) == (4000, 5000)
    assert bounds(preprocessor={"size": size, "min_pixels": 3500}) == (3500, 5000)
    joint = {"image_processor": {"size": size}}
    assert bounds(processor=joint) == (4000, 5000)
