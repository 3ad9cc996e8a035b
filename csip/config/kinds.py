"""What a setting takes: whether it is text, and its range and choices in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

_SIGNS = ((Gt, "gt", ">"), (Ge, "ge", ">="), (Lt, "lt", "<"), (Le, "le", "<="))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """Return the section that a field is, or None where it is a single setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def walk(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield every dotted key below a section with its field, sections before their settings."""
    for name, field in section.model_fields.items():
        yield prefix + name, field
        inner = section_of(field)
        if inner is not None:
            yield from walk(inner, f"{prefix}{name}.")


def kind_of(field: FieldInfo) -> tuple[Any, bool]:
    """Return the type of a setting without null, and whether null is allowed."""
    kinds = [field.annotation]
    if NoneType in get_args(field.annotation):
        kinds = [kind for kind in get_args(field.annotation) if kind is not NoneType]
    kind = kinds[0]
    return (get_args(kind)[0] if get_origin(kind) is Annotated else kind), kinds != [field.annotation]


def is_text(field: FieldInfo) -> bool:
    """Whether a setting takes text as it stands: a name, a path, one of some words."""
    kind, _ = kind_of(field)
    return kind in (str, Path) or get_origin(kind) is Literal


def expected(field: FieldInfo) -> str:
    """Say what a setting takes, e.g. "an integer >= 1 or null"."""
    kind, optional = kind_of(field)
    if section_of(field) is not None:
        return "a section (keys and values)"
    if get_origin(kind) is Literal:
        text = f"one of {', '.join(get_args(kind))}"
    elif get_origin(kind) is tuple:
        items = get_args(kind)
        what = "integers" if items[0] is int else "numbers"
        text = f"a list of {what}" if Ellipsis in items else f"a list of {len(items)} {what}"
    else:
        names = {str: "text", Path: "a path", int: "an integer", float: "a number", bool: "true or false"}
        limits = [f"{sign} {_limit(field, rule, name)}" for rule, name, sign in _SIGNS if _limit(field, rule, name)]
        text = " ".join((names[kind], " and ".join(limits))).strip()
    return f"{text} or null" if optional else text


def _limit(field: FieldInfo, rule: type, name: str) -> str:
    return next((f"{getattr(part, name):g}" for part in field.metadata if isinstance(part, rule)), "")


def shown(value: Any) -> str:
    """Write a value as a settings file would, short enough for a message."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
