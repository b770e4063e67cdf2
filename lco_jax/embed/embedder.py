"""The embedding model as its users know it: the names are those of sentence-transformers."""

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Float
from PIL import Image

from lco_jax.config import MediaConfig, Memory, MeshConfig
from lco_jax.config.io import with_former_names
from lco_jax.data.records import Item, parse_item
from lco_jax.embed.encoder import Encoder, Errors, MakeReader, progress_bar
from lco_jax.embed.open import open_model
from lco_jax.embed.vector_cache import VectorCache
from lco_jax.runtime.mesh import make_mesh

Input = str | Image.Image | Item | dict[str, Any]
"""A text, an image, an item, or an item as it stands in a JSON Lines file."""

_MEMORY = Memory(
    row_tokens=(*Memory().row_tokens, 32_768), frame_rows=(*Memory().frame_rows, 81_920)
)
"""Rows also for the largest images that public checkpoints allow, of 16,384 tokens."""


class Embedder:
    """Unit vectors of texts.

        embedder = Embedder("runs/quickstart/refine")
        vectors = embedder.encode(["a small cat", "a large dog"])

    Queries and documents are encoded alike: the recipe has one prompt for both.

    Args:
        model: hub folder, hub id or run folder.
        checkpoint: step of a run folder (None: the best evaluated one, else the last).
        profile: prompt recipe (None: that of the run or export, else `lco`).
        dtype: of weights and activations (None: as the run was trained, else bfloat16 on
            accelerators and float32 on CPU).
        truncate_dim: keep the first dimensions of every vector and normalise again.
        tokens_per_batch: packed tokens that a device computes at a time.
        patches_per_batch: image patches that a device computes at a time.
        media: sizes and rates of images and videos (None: those of the run or export; if the
            profile `mteb` is asked for, those of mteb's wrapper).
        cache: folder in which vectors are kept, found by the contents of their items, so that
            nothing is encoded twice (None: none are kept).
        make_reader: gives what some media are read with in place of the towers (see `Encoder`).

    Raises:
        FileNotFoundError: no such model.
        ValueError: the folder does not hold a model of a supported family.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        checkpoint: int | None = None,
        profile: str | None = None,
        max_text_tokens: int | None = None,
        dtype: str | None = None,
        truncate_dim: int | None = None,
        tokens_per_batch: int = 4096,
        patches_per_batch: int = 8192,
        media: MediaConfig | None = None,
        mesh: MeshConfig | jax.sharding.Mesh | None = None,
        cache: str | Path | None = None,
        make_reader: MakeReader | None = None,
    ):
        if cache is not None and jax.process_count() > 1:
            raise ValueError(f"cache={str(cache)!r} is for one process; leave it out")
        mesh = mesh or MeshConfig()
        self._mesh = make_mesh(mesh) if isinstance(mesh, MeshConfig) else mesh
        with jax.set_mesh(self._mesh):
            opened = open_model(
                str(model),
                checkpoint=checkpoint,
                profile=profile,
                max_text_tokens=max_text_tokens,
                media=media,
                dtype=dtype,
            )
        self.config, self.processor = opened.config, opened.processor
        self.truncate_dim = truncate_dim
        self.identity = (
            str(Path(model).resolve()),
            opened.step,
            opened.dtype,
            truncate_dim,
            with_former_names(opened.processor.describe()),
        )
        """What vectors depend on besides their items."""
        self._encoder = Encoder(
            opened.graph,
            opened.params,
            opened.processor,
            self._mesh,
            memory=_MEMORY,
            make_reader=make_reader,
            tokens_per_batch=tokens_per_batch,
            patches_per_batch=patches_per_batch,
        )
        self._cache = None
        if cache is not None:
            full = self.get_embedding_dimension()
            self._cache = VectorCache(cache, self._revision_of(None), full)

    def encode(
        self,
        inputs: Input | Sequence[Input],
        *,
        truncate_dim: int | None = None,
        show_progress_bar: bool = False,
        errors: Errors | None = None,
    ) -> Float[np.ndarray, "... E"]:
        """Unit vectors, float32, in input order; one vector for a single input.

        Unlike in sentence-transformers, truncated vectors are unit vectors again.

        Args:
            inputs: texts, images, items, or objects with the fields of an item.
            truncate_dim: keep the first dimensions and normalise again.
            errors: where to note inputs whose text or media cannot be used, by index; their
                vectors are zero (None: the first error is raised).

        Raises:
            ValueError: an input is empty, too long, not an item, or has media that cannot be used.
        """
        single = isinstance(inputs, str | Item | dict | Image.Image)
        items = [_to_item(value, i) for i, value in enumerate([inputs] if single else inputs)]
        if not items:
            return np.zeros((0, truncate_dim or self.width), np.float32)
        with progress_bar(len(items), show_progress_bar) as bar:
            advance = lambda count: bar.advance(bar.task_ids[0], count)  # noqa: E731
            encode = self._encoder.encode
            if self._cache is not None:
                encode = functools.partial(self._cache.encode, encode)
            pooled = encode(items, on_progress=advance, errors=errors)
        vectors = self._normalized(pooled, truncate_dim or self.width)
        return vectors[0] if single else vectors

    def encode_pieces(
        self, pieces: Iterable[Sequence[Item | ValueError]]
    ) -> Iterator[tuple[Float[np.ndarray, "N E"], Errors]]:
        """The unit vectors of each piece of a long job, and what is wrong with items that have
        none. An error in the place of an item stands for one that cannot be read.

        The devices work on one piece while the next is read. Several processes are given the same
        pieces, of which each looks at its own items only.
        """
        if self._cache is None:
            for pooled, errors in self._encoder.encode_pieces(pieces):
                yield self._normalized(pooled, self.width), errors
            return
        for piece in pieces:
            items = list(piece)
            errors = {i: item for i, item in enumerate(items) if isinstance(item, ValueError)}
            good = [i for i in range(len(items)) if i not in errors]
            vectors, found = np.zeros((len(items), self.width), np.float32), {}
            vectors[good] = self.encode([items[i] for i in good], errors=found)
            yield vectors, errors | {good[i]: error for i, error in found.items()}

    def _normalized(self, pooled: Float[np.ndarray, "N D"], width: int) -> np.ndarray:
        if not 0 < width <= self.get_embedding_dimension():
            raise ValueError(f"truncate_dim={width} is not in 1..{self.get_embedding_dimension()}")
        pooled = pooled[:, :width]
        return pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-12)

    def encode_query(self, inputs: Input | Sequence[Input], **options: Any) -> np.ndarray:
        """As `encode`."""
        return self.encode(inputs, **options)

    def encode_document(self, inputs: Input | Sequence[Input], **options: Any) -> np.ndarray:
        """As `encode`."""
        return self.encode(inputs, **options)

    def similarity(
        self, a: Float[np.ndarray, "N E"], b: Float[np.ndarray, "M E"]
    ) -> Float[np.ndarray, "N M"]:
        """Cosine of every pair."""
        return _unit(a) @ _unit(b).T

    def similarity_pairwise(
        self, a: Float[np.ndarray, "N E"], b: Float[np.ndarray, "N E"]
    ) -> Float[np.ndarray, "N"]:
        """Cosine of the pairs in order."""
        return np.sum(_unit(a) * _unit(b), axis=-1)

    def get_embedding_dimension(self) -> int:
        """Width of the full vectors."""
        return self.config.text.hidden_size

    @property
    def width(self) -> int:
        """Width of what `encode` returns by default."""
        return self.truncate_dim or self.get_embedding_dimension()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What `encode` takes."""
        return ("text", *self.processor.kinds)

    @functools.cached_property
    def revision(self) -> str:
        """Hash of all that vectors depend on besides their items: recipe, checkpoint and weights.

        Weights count by name, size and time: a copy of a model is another model.
        """
        return self._revision_of(self.truncate_dim)

    def _revision_of(self, truncate_dim: int | None) -> str:
        model, step, dtype, _, recipe = self.identity
        identity = (model, step, dtype, truncate_dim, recipe)
        digest = hashlib.blake2b(repr(identity).encode(), digest_size=10)
        folder = Path(model)
        files = [*folder.glob("*.safetensors"), *folder.glob("config.json")]
        files += [*(folder / "checkpoints" / str(step)).rglob("*")] if step is not None else []
        for file in sorted(files):
            if file.is_file():
                stat = file.stat()
                digest.update(repr((file.name, stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()

    def supports(self, modality: str) -> bool:
        """Whether `encode` takes items of this modality."""
        return modality in self.modalities


def _unit(vectors: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    vectors = np.atleast_2d(vectors)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _to_item(value: Input, index: int) -> Item:
    if isinstance(value, Item):
        return value
    if isinstance(value, Image.Image):
        content = io.BytesIO()
        value.save(content, "PNG", compress_level=1)
        return Item(images=(content.getvalue(),))
    return parse_item(value, epath.Path("."), f"input {index}")
