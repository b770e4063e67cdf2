"""What fields of a `config.json` may hold."""

from typing import Annotated

from pydantic import AfterValidator, Field

Size = Annotated[int, Field(ge=1, le=1 << 20)]
Layers = Annotated[int, Field(ge=1, le=1000)]
Positive = Annotated[float, Field(gt=0, le=1e12)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
HeightWidth = Annotated[list[Pixels], Field(min_length=2, max_length=2)]
Rate = Annotated[float, Field(gt=0, le=10_000)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 24)]
Positions = Annotated[int, Field(ge=1, le=1 << 30)]
Factor = Annotated[float, Field(ge=1, le=1e6)]

Sections = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=3, max_length=3)]


def _none(value: float) -> float:
    if value:
        raise ValueError("is not supported; expected 0")
    return value


def _one(value: float) -> float:
    if value != 1:
        raise ValueError("is not supported; expected 1")
    return value


Zero = Annotated[float, AfterValidator(_none)]
One = Annotated[float, AfterValidator(_one)]
