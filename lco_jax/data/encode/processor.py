"""From an item to what the model reads: media, tokens and positions."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int32

from lco_jax.config import ControlTokensRead, MediaConfig, ProfileName
from lco_jax.config.io import reading_to_json
from lco_jax.data.encode.encoded import Content, Encoded, Kind
from lco_jax.data.encode.feature_cache import MediaCache
from lco_jax.data.encode.profiles import default_media
from lco_jax.data.encode.prompt import Prompter
from lco_jax.data.encode.row import Row
from lco_jax.data.encode.tower_media import TowerMedia
from lco_jax.data.encode.wrapper_media import wrapper_media
from lco_jax.data.errors import RecordError, at, belonging_to
from lco_jax.data.media.errors import MediaError
from lco_jax.data.media.sources import MediaSource, name_of
from lco_jax.data.records import Exchange, Item
from lco_jax.models.config import ModelConfig
from lco_jax.models.families import FAMILIES

_T = TypeVar("_T")
_NAMED_CHARS = 40
_READ_AS_TEXTS = ("image", "audio")
"""Media that a reader may put texts in the place of."""
_Read = tuple[Content, ...]
"""A medium, or a video with its audio."""


class Processor:
    """Reads the media of items, and turns items into tokens.

    Args:
        folder: hub folder of the checkpoint: tokenizer, chat template, pixel statistics.
        config: of the model; decides which kinds of media it reads.
        media: sizes and rates (None: those of the profile; with `mteb` those of mteb's wrapper).
        profile: prompt recipe; it also says whether a video may have an odd number of frames.
        max_text_tokens: texts are cut to this many tokens (None: what the profile says).
        control_tokens: how control tokens in texts are read (see `DataConfig`).
        cache: of media whose features are known and which need not be read.

    Raises:
        ValueError: the folder's tokenizer, template or settings cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: ModelConfig,
        *,
        media: MediaConfig | None = None,
        profile: ProfileName = "lco",
        max_text_tokens: int | None = None,
        control_tokens: ControlTokensRead = "characters",
        cache: MediaCache | None = None,
    ):
        folder = Path(folder)
        if media is None:
            media = wrapper_media(folder) if profile == "mteb" else default_media(profile)
        self._cache = cache
        self.config, self.media = config, media
        self.family = FAMILIES[config.family]
        kinds = tuple(config.placeholders)
        self.prompter = Prompter(folder, profile, max_text_tokens, kinds, control_tokens)
        self.kinds: tuple[Kind, ...] = tuple(self.prompter.markup)
        """Of media that items may have."""
        self._placeholders = {config.placeholders[kind] for kind in self.kinds}
        self._tower_media = TowerMedia(folder, config, media, self.kinds, profile)
        self._pool = ThreadPoolExecutor(thread_name_prefix="media")

    @property
    def head(self) -> Int32[np.ndarray, "P"]:
        """The tokens with which every item begins."""
        return self.prompter.head

    def encode(self, items: Sequence[Item]) -> list[Encoded]:
        """Tokens, positions and media of each item.

        Raises:
            RecordError: an item is empty, has media that the model does not read, or cannot be
                encoded; a MediaError, which names the file, if a medium cannot be used.
        """
        encoded = self.try_encode(items)
        for found in encoded:
            if isinstance(found, RecordError):
                raise found
        return encoded

    def try_encode(self, items: Sequence[Item]) -> list[Encoded | RecordError]:
        """As `encode`, with the error in the place of an item that cannot be encoded, of whatever
        kind it was."""
        media = self._read_all(items, self.prompter.check)
        encoded = _each(self.prompter.encode_checked, _without_errors(items, media), _name_of)
        return self._expand_all(items, encoded, media)

    def try_encode_exchanges(
        self, exchanges: Sequence[Exchange], max_response_tokens: int
    ) -> list[Encoded | RecordError]:
        """Tokens, targets, positions and media of each prompt with its response, or the error in
        the place of one that cannot be encoded.
        """
        items = [exchange.prompt for exchange in exchanges]
        media = self._read_all(items, partial(self.prompter.check, may_be_empty=True))
        encoded = _each(
            lambda good: self.prompter.encode_checked_exchanges(
                [exchange.prompt for exchange in good],
                [exchange.response for exchange in good],
                max_response_tokens,
            ),
            _without_errors(exchanges, media),
            lambda exchange: _name_of(exchange.prompt),
        )
        return self._expand_all(items, encoded, media)

    def _read_all(
        self, items: Sequence[Item], check: Callable[[Item], None]
    ) -> list[list[_Read] | RecordError]:
        # Texts need no thread: starting work there costs more than looking at them.
        found = self._pool.map(
            lambda item: self._read_media(item, check), [item for item in items if item.has_media]
        )
        texts = [item for item in items if not item.has_media]
        try:
            for item in texts:
                check(item)
            checked: Iterator[list[_Read] | RecordError] = ([] for _ in texts)
        except Exception:  # of one of them: each is looked at by itself
            checked = (self._read_media(item, check) for item in texts)
        return [next(found if item.has_media else checked) for item in items]

    def _expand_all(
        self,
        items: Sequence[Item],
        encoded: Iterable[Encoded | RecordError],
        media: Sequence[list[_Read] | RecordError],
    ) -> list[Encoded | RecordError]:
        if not any(media):  # texts alone
            return list(encoded)
        encoded = iter(encoded)
        return [
            self._expand(item, next(encoded), own) if isinstance(own, list) else own
            for item, own in zip(items, media, strict=True)
        ]

    def with_cache(self, cache: MediaCache) -> "Processor":
        """The same processor with other media known."""
        other = copy.copy(self)
        other._cache = cache
        return other

    def describe(self) -> dict[str, Any]:
        """What the tokens depend on, for the manifest of a run or an export."""
        return {**self.prompter.describe(), "media": reading_to_json(self.media)}

    def recipe(self) -> dict[str, Any]:
        """The arguments of a processor of another model that reads items as this one does."""
        return {
            "profile": self.prompter.profile,
            "max_text_tokens": self.prompter.max_text_tokens,
            "control_tokens": self.prompter.control_tokens,
            "media": self.media,
        }

    @property
    def media_settings(self) -> tuple:
        """What the contents of media depend on besides their bytes."""
        return (reading_to_json(self.media), *self._tower_media.settings)

    def _read_media(self, item: Item, check: Callable[[Item], None]) -> list[_Read] | RecordError:
        try:
            with belonging_to(lambda: _name_of(item)):
                check(item)
                return [self._read(*medium) for medium in self.prompter.ordered_media(item)]
        except MediaError as error:
            return error if item.id is None else at(f"item {item.id}", error)
        except RecordError as error:
            return error

    def _read(self, kind: Kind, source: MediaSource) -> _Read:
        if self._cache is not None:
            known = self._cache.load(self._cache.key(kind, source))
            if known is not None:
                return known
        read = self.read_medium(kind, source)
        if kind in _READ_AS_TEXTS and getattr(self.media, f"{kind}_features") != "all":
            raise ValueError(
                f"data.media.{kind}_features={getattr(self.media, f'{kind}_features')} is for "
                f"embedding; train with {kind}_features=all"
            )
        return read

    def read_medium(self, kind: Kind, source: MediaSource) -> _Read:
        """A medium as its tower reads it; a video with its audio has two parts.

        Raises:
            MediaError: it cannot be used.
        """
        return self._tower_media.read(kind, source)

    def _expand(
        self, item: Item, encoded: Encoded | RecordError, media: list[_Read]
    ) -> Encoded | RecordError:
        """As many tokens for each medium as it has features, and the positions of all."""
        if not media or isinstance(encoded, RecordError):
            return encoded
        try:
            with belonging_to(lambda: _name_of(item)):
                return self._put_together(encoded, media)
        except RecordError as error:
            return error

    def _put_together(self, encoded: Encoded, media: list[_Read]) -> Encoded:
        ids = encoded.tokens.tolist()
        found = [index for index, token in enumerate(ids) if token in self._placeholders]
        if len(found) != len(media):
            raise ValueError(
                f"its prompt has {len(found)} tokens that stand for media, and it has {len(media)} "
                "media; remove such tokens from the text, or set control_tokens to characters"
            )
        row = Row(self.config, encoded.tokens, self.prompter.tokens_of)
        for index, medium in zip(found, media, strict=True):
            row.add_text(index)
            if len(medium) == 1:
                row.add_medium(*medium)
            else:
                row.add_audio_video(*medium)
        row.add_text(len(ids))
        return row.finish(encoded, self.family.after_video(self.media.after_video))


def _without_errors(values: Sequence[_T], media: Sequence[list | RecordError]) -> list[_T]:
    return [value for value, own in zip(values, media, strict=True) if isinstance(own, list)]


def _each(
    encode: Callable[[Sequence[_T]], list[Encoded]],
    values: Sequence[_T],
    name: Callable[[_T], str],
) -> list[Encoded | RecordError]:
    """All values encoded together; one by one if one of them cannot be, which is then its fault."""
    try:
        with belonging_to(""):
            return list(encode(values))
    except RecordError as error:
        if len(values) == 1:
            return [at(name(values[0]), error.__cause__ or error)]
    return [found for value in values for found in _each(encode, [value], name)]


def _name_of(item: Item) -> str:
    """What errors call an item: by its id, its text or its first medium."""
    if item.id is not None:
        return f"item {item.id}"
    if item.text.strip():
        return f"the item {item.text[:_NAMED_CHARS]!r}"
    media = [source for sources in item.media.values() for source in sources]
    return f"the item with {name_of(media[0])}" if media else "an item"
