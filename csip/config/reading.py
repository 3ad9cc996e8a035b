"""Settings files and overrides: read, merged, checked, and explained where they cannot be used.

A file may name another in ``extends`` (relative to itself) and then states only what differs. Overrides come last: text,
``stage1.epochs=3``, or a pair of key and value, which nothing parses. A setting that is text (a name, a path) takes the
text after ``=`` as it stands; so does one in a file, whatever YAML would make of it (``name: 2024-11-25``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from csip.config.kinds import expected, is_text, kind_of, section_of, shown, walk
from csip.config.settings import Settings
from csip.config.unread import unread
from csip.errors import CsipError

Override = str | tuple[str, object]
FIELDS = dict(walk(Settings))
_NO_YAML = (yaml.YAMLError, ValueError, RecursionError)


class _Loader(yaml.SafeLoader):
    """YAML as usual, but a key stands once in a mapping, and dates are text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in lines:
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"key {key.value} stands twice, in lines {lines[key.value]} and {key.start_mark.line + 1}",
                )
            lines[key.value] = key.start_mark.line + 1
        return node


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_settings(path: Path, overrides: Iterable[Override] = ()) -> Settings:
    """Read a settings file and apply overrides.

    Parameters
    ----------
    path
        A YAML file.
    overrides
        ``key=value``, where a list or the settings of a section are YAML, or (key, value).

    Raises
    ------
    CsipError
        The file is missing or no YAML mapping, a key is unknown (the nearest valid one is named), a value has the
        wrong type or range, or an override would change nothing.
    """
    tree = _read_tree(path, ())
    keys = [_override(tree, override) for override in overrides]
    settings = settings_of(tree, path)
    if idle := unread(settings, keys):
        raise CsipError("\n  ".join((f"{path}: {len(idle)} override(s) would change nothing", *idle)))
    return settings


def dump_settings(settings: Settings) -> str:
    """Return the settings as YAML that `load_settings` reads back to the same tree."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def valid_keys(section: type[BaseModel] = Settings) -> list[str]:
    """Every dotted key of the tree, sections included."""
    return [key for key, _ in walk(section)]


def nearest(key: str) -> str:
    """Return the valid key that an unknown one is most like."""
    return difflib.get_close_matches(key, FIELDS, n=1, cutoff=0.0)[0]


def settings_of(tree: dict[str, Any], path: Path) -> Settings:
    """Return the settings of a tree that was read from a file.

    Raises
    ------
    CsipError
        An unknown key or a value that cannot be used; the message names the file and every such key.
    """
    # Python counts true as 1; a person who writes it does not.
    wrong = [
        _unusable(key, field, value)
        for key, field in FIELDS.items()
        if isinstance(value := _at(tree, key), bool) and kind_of(field)[0] in (int, float)
    ]
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        wrong += [_explain(dict(problem), tree) for problem in error.errors()]
    if wrong:
        wrong = list(dict.fromkeys(wrong))  # each item of a list is a problem of its own to pydantic
        raise CsipError("\n  ".join((f"{path}: {len(wrong)} setting(s) cannot be used", *wrong)))
    return settings


# ---- files -----------------------------------------------------------------------------------------------------------


def _read_tree(path: Path, readers: tuple[Path, ...]) -> dict[str, Any]:
    """Read a file and what it extends; `readers` are the files that led here."""
    try:
        text = path.read_text(encoding="utf-8")
        tree, texts = yaml.load(text, _Loader), yaml.load(text, yaml.BaseLoader)
    except FileNotFoundError as error:
        raise CsipError(f"{path}: no such settings file") from error
    except IsADirectoryError as error:
        raise CsipError(f"{path}: expected a settings file, found a folder") from error
    except _NO_YAML as error:
        raise CsipError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(tree, dict):
        raise CsipError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    _keep_texts(tree, texts, Settings)
    base = tree.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str) or not base:
        raise CsipError(f"{path}: extends: expected a settings file, found {shown(base)}")
    if path.resolve() in readers:
        raise CsipError(f"{path}: extends itself, through {' -> '.join(reader.name for reader in readers)}")
    return _merge(_read_tree(path.parent / base, (*readers, path.resolve())), tree)


def _keep_texts(tree: dict[str, Any], texts: Any, section: type[BaseModel]) -> None:
    """Give settings that are text the characters of the file instead of what YAML made of them."""
    if not isinstance(texts, dict):
        return
    for name, field in section.model_fields.items():
        value, text, inner = tree.get(name), texts.get(name), section_of(field)
        if inner is not None and isinstance(value, dict):
            _keep_texts(value, text, inner)
        elif is_text(field) and isinstance(value, int | float) and isinstance(text, str):
            tree[name] = text


def _merge(base: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


# ---- overrides -------------------------------------------------------------------------------------------------------


def _override(tree: dict[str, Any], override: Override) -> str:
    """Change the tree; return the key."""
    if isinstance(override, str):
        key, separator, text = override.partition("=")
        key = key.strip()
        if not separator:
            raise CsipError(f"{override}: expected key=value, e.g. stage1.epochs=3")
        value = _parse(key, text, FIELDS.get(key))
    else:
        key, value = override
    *sections, name = key.split(".")
    for section in sections:
        inner = tree.setdefault(section, {})
        if not isinstance(inner, dict):
            raise CsipError(f"{key}: {section} is a value, not a section")
        tree = inner
    tree[name] = _merge(tree[name], value) if isinstance(value, dict) and isinstance(tree.get(name), dict) else value
    return key


def _parse(key: str, text: str, field: FieldInfo | None) -> Any:
    """Read the text of an override as its setting's type wants it; what is no number is left to the check."""
    if field is None:
        return text
    kind, optional = kind_of(field)
    inner = section_of(field)
    if is_text(field):
        # A folder may be called null; a probe set, weights and the like are not.
        return None if optional and text == "null" and kind is not Path else text
    if inner is None and get_origin(kind) is not tuple:
        return None if optional and text.strip() in ("null", "~", "") else _number(text.strip(), kind)
    try:
        value = yaml.load(text, _Loader)
    except _NO_YAML as error:
        raise CsipError(f"{key}: expected {expected(field)}, found {shown(text)}, which is not YAML") from error
    if inner is not None and isinstance(value, dict):
        _keep_texts(value, yaml.load(text, yaml.BaseLoader), inner)
    return value


def _number(text: str, kind: Any) -> Any:
    for number in (int, float):
        try:
            return number(text) if kind in (int, float) else text
        except ValueError:
            continue
    return text


# ---- messages --------------------------------------------------------------------------------------------------------


def _explain(problem: Mapping[str, Any], tree: dict[str, Any]) -> str:
    """Return one problem that pydantic found, as ``key: what was expected, what was found``."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] in ("extra_forbidden", "invalid_key"):
        key = key.removesuffix(".[key]")
        return f"{key}: unknown key; did you mean {nearest(key)}?"
    if problem["type"] == "missing" and key in FIELDS:
        return f"{key}: required, but not given"
    if problem["type"] == "value_error":
        return f"{key or 'settings'}: {problem['msg'].removeprefix('Value error, ')}"
    for prefix in _prefixes(key):  # an item of a list has a location of its own
        if prefix in FIELDS:
            return _unusable(prefix, FIELDS[prefix], _at(tree, prefix))
    return f"{key}: {problem['msg']}, found {shown(problem['input'])}"


def _unusable(key: str, field: FieldInfo, value: Any) -> str:
    kind, _ = kind_of(field)
    advice = ""
    if get_origin(kind) is Literal and isinstance(value, str):
        close = difflib.get_close_matches(value, get_args(kind), n=1)
        advice = f"; did you mean {close[0]}?" if close else ""
    elif kind is str and not isinstance(value, str):
        advice = "; in a YAML file, put it in quotes"
    return f"{key}: expected {expected(field)}, found {shown(value)}{advice}"


def _prefixes(key: str) -> Iterator[str]:
    while key:
        yield key
        key = key.rpartition(".")[0]


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
