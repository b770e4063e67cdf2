"""Responses of a stage's model to held-out media, for the report."""

import base64
import itertools
import json
from pathlib import Path

from lco_jax.config import MediaConfig, Samples, Source
from lco_jax.data.records import Exchange
from lco_jax.data.sources.open import open_source
from lco_jax.embed.generate import Generator
from lco_jax.report.page import write_whole


def write_samples(
    samples: Samples, model: Path, media: MediaConfig, file: Path, *, dtype: str | None = None
) -> None:
    """Generate the responses and write them, with the media that were shown.

    Raises:
        ValueError: a prompt does not have exactly one medium, given by its content.
    """
    exchanges = list(itertools.chain.from_iterable(map(_read, samples.sources)))
    generator = Generator.open(model, media=media, dtype=dtype)
    responses = generator.generate(
        [exchange.prompt for exchange in exchanges], max_new_tokens=samples.max_new_tokens
    )
    content = [
        _describe(exchange, response)
        for exchange, response in zip(exchanges, responses, strict=True)
    ]
    write_whole(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _read(source: Source) -> list[Exchange]:
    records = open_source(source, Exchange).records
    return [records[index] for index in range(len(records))]


def _describe(exchange: Exchange, response: str) -> dict[str, str]:
    prompt = exchange.prompt
    given = [("image", content) for content in prompt.images]
    given += [("audio", content) for content in prompt.audios]
    if len(given) != 1 or not isinstance(given[0][1], bytes):
        raise ValueError(
            f"sample {exchange.id or prompt.text!r} has {len(given)} media; expected one from a "
            "prepared dataset"
        )
    kind, content = given[0]
    return {
        "kind": kind,
        "medium": base64.b64encode(content).decode(),
        "prompt": prompt.text.strip(),
        "expected": exchange.response,
        "response": response.strip(),
    }
