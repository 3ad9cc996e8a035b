"""What an entry of a review's journal holds; whatever else is in one, somebody else has written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError

Measure = Annotated[FiniteFloat, Field(ge=-1e6, le=1e6)]  # some widths of a threshold: squares of more run over
Names = Annotated[list[str], Field(min_length=1)]


class _Entry(BaseModel):
    model_config = ConfigDict(strict=True)
    key: str | None = None


class _Compare(_Entry):
    do: Literal["compare"]
    a: str
    b: str
    answer: Literal["same", "different", "unsure"]


class _Asked(_Compare):
    kind: Literal["join", "split", "again", "contradiction"]
    measured: Annotated[list[Measure], Field(min_length=5, max_length=5)]
    agrees: bool


class _Mark(_Entry):
    do: Literal["mark"]
    names: Names
    mark: Literal["person", "junk", "mixed"] = Field(alias="as")


class _Move(_Entry):
    do: Literal["move"]
    names: Names
    to: str | None
    apart: list[str] = Field(alias="from")
    beside: list[str]


class _Group(_Entry):
    do: Literal["merge", "confirm"]
    names: Names


class _Rename(_Entry):
    do: Literal["rename"]
    names: Names
    title: Annotated[str, Field(min_length=1)]


class _Undo(_Entry):
    do: Literal["undo"]
    of: Annotated[int, Field(ge=1)]


_PLAIN: TypeAdapter[Any] = TypeAdapter(
    Annotated[_Compare | _Mark | _Move | _Group | _Rename | _Undo, Field(discriminator="do")]
)


def check_entry(entry: Mapping[str, Any]) -> None:
    """Refuse an entry that no review writes.

    Raises
    ------
    ValueError
        It says what was expected, and what was found.
    """
    try:
        _Asked.model_validate(entry) if "measured" in entry else _PLAIN.validate_python(entry)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "do"
        raise ValueError(f"{place}: {first['msg']}, found {first['input']!r:.80}") from error
