"""The states of many items after every layer: computed once, kept on disk layer by layer.

All layers of 20,000 items of a 3B model take 6 GB a side; the analyses read one layer at a time.
"""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from lco_jax.config import Memory, MeshConfig
from lco_jax.data.encode.processor import Processor
from lco_jax.data.records import Item
from lco_jax.embed.encoder import Encoder, MakeReader, progress_bar
from lco_jax.embed.open import open_model
from lco_jax.objectives.encode import encode, media_features
from lco_jax.runtime.disks import writing
from lco_jax.runtime.mesh import make_mesh

_PIECE_BYTES = 256 * 2**20
"""Of states that wait for the disk."""


class LayerStates(Sequence[Float[np.ndarray, "N D"]]):
    """The layers of a folder; `states[i]` reads one: embeddings first, the normed output last."""

    def __init__(self, folder: str | Path):
        self._files = sorted(Path(folder).glob("layer_*.npy"))
        if not self._files:
            raise FileNotFoundError(f"{folder} holds no layer_*.npy")

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Float[np.ndarray, "N D"]:
        # Read, not mapped: mapped pages would stay in memory as long as there is room.
        return np.load(self._files[index])


class LayerWriter:
    """Writes the layers of `count` items to a folder, some items at a time."""

    def __init__(self, folder: str | Path, count: int):
        self._folder, self._count, self._done = Path(folder), count, 0
        self._files: list[BinaryIO] = []

    def __enter__(self) -> "LayerWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.glob("layer_*.npy"):
            old.unlink()
        return self

    def append(self, states: Float[np.ndarray, "N L D"]) -> None:
        """Add the next items."""
        count, layers, width = states.shape
        with writing(self._folder, 4 * self._count * layers * width):
            for layer in range(layers):
                if len(self._files) <= layer:
                    file = (self._folder / f"layer_{layer:03d}.npy").open("wb")
                    header = {"descr": "<f4", "fortran_order": False, "shape": (self._count, width)}
                    np.lib.format.write_array_header_1_0(file, header)
                    self._files.append(file)
                self._files[layer].write(np.ascontiguousarray(states[:, layer], "<f4").tobytes())
        self._done += count

    def __exit__(self, kind, *_: object) -> None:
        with writing(self._folder), contextlib.ExitStack() as files:
            for file in self._files:
                files.enter_context(file)
        if kind is None and self._done != self._count:
            raise ValueError(f"{self._folder} got {self._done} of {self._count} items")


class LayerEncoder(Encoder):
    """As `Encoder`, but gives the states after every layer, one behind the other.

    Source: `hidden_states` of transformers, whose last entry is the output of the final norm.
    """

    def __init__(self, graph: nnx.GraphDef, *arguments: Any, width: int, **options: Any):
        super().__init__(graph, *arguments, **options)
        self._embed = _compiled(graph, self.flows)
        self._layer_width = width

    def encode_layers(self, items: Sequence[Item]) -> Float[np.ndarray, "N L D"]:
        """States of every item after the embeddings and after each layer, float32."""
        return self.encode(items).reshape(len(items), -1, self._layer_width)

    @property
    def _width(self) -> int:
        num_layers = len(self.params["layers"]["attention_norm"]["scale"])
        return (num_layers + 1) * self._layer_width


@functools.lru_cache(maxsize=4)
def _compiled(graph: nnx.GraphDef, flows: bool) -> Callable[..., Float[Array, "I LD"]]:
    @jax.jit
    def embed(params: dict[str, Any], batch, preamble: Array) -> Float[Array, "I LD"]:
        model = nnx.merge(graph, params)
        chunk = jax.tree.map(lambda x: x[0], batch)
        features = media_features(model, chunk)
        pooled, taps = encode(
            model, chunk, preamble, features, tap=lambda states: states, flows=flows
        )
        # (L + 1, J, I, D) with one role J; the last layer's is replaced by the normed output.
        states = jnp.concatenate([taps[:-1, 0].astype(jnp.float32), pooled[:1]])
        states = states.swapaxes(0, 1)  # (I, L + 1, D)
        return states.reshape(len(states), -1)

    return embed


def open_layer_encoder(
    model: str,
    *,
    checkpoint: int | None = None,
    dtype: str | None = None,
    tokens_per_batch: int = 4096,
    mesh: MeshConfig | jax.sharding.Mesh | None = None,
    make_reader: MakeReader | None = None,
    read_as: Processor | None = None,
) -> LayerEncoder:
    """The encoder of a model by name; arguments as of `Embedder`.

    Args:
        read_as: of another model that this one is compared with: items are read as there (prompt,
            limits and media), so that the models differ in their weights alone.
    """
    mesh = mesh or MeshConfig()
    mesh = make_mesh(mesh) if isinstance(mesh, MeshConfig) else mesh
    recipe = {} if read_as is None else read_as.recipe()
    with jax.set_mesh(mesh):
        opened = open_model(model, checkpoint=checkpoint, dtype=dtype, **recipe)
    return LayerEncoder(
        opened.graph,
        opened.params,
        opened.processor,
        mesh,
        width=opened.config.text.hidden_size,
        memory=Memory(),
        tokens_per_batch=tokens_per_batch,
        make_reader=make_reader,
    )


def write_states(encoder: LayerEncoder, items: Sequence[Item], folder: str | Path) -> LayerStates:
    """Encode items and keep their states in `folder`."""
    first = encoder.encode_layers(items[:1])
    piece = max(1, _PIECE_BYTES // first.nbytes)
    with (
        LayerWriter(folder, len(items)) as writer,
        progress_bar(len(items), enabled=jax.process_index() == 0) as bar,
    ):
        for start in range(0, len(items), piece):
            states = encoder.encode_layers(items[start : start + piece])
            writer.append(states)
            bar.advance(bar.task_ids[0], len(states))
    return LayerStates(folder)
