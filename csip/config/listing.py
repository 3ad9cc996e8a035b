"""The settings with their values, what they take, and what they mean: as rows, as a settings file, as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from csip.config.kinds import expected, section_of, shown
from csip.config.reading import FIELDS, nearest
from csip.config.settings import Settings
from csip.errors import CsipError

NAME = "NAME"
"""Stands for the name of a data set where none is chosen."""

_PAGE = """# Settings

This page is made by `csip settings --markdown > docs/settings.md`.

The settings of a run come from a YAML file: `configs/NAME.yaml` for `--dataset NAME`, or the file of `--config FILE`. A
setting that the file does not state has its default. `--set SECTION.KEY=VALUE` overrides one setting and may be repeated. A
file can name another in `extends: FILE` and then states only what differs.

- `csip settings` prints this list, `csip settings stage2` one section of it.
- `csip settings --dataset mars` prints the values that a run on MARS uses.
- `csip settings --yaml > mine.yaml` writes a settings file to start from.

"authors" marks what the method's authors ran, "paper" what the paper says, where that is known.
"""


@dataclass(frozen=True)
class Setting:
    """One setting, or a section of them.

    Attributes
    ----------
    key
        Dotted name, e.g. ``stage1.epochs``.
    value
        Its value, plain YAML data; None for a section.
    default
        Its default, likewise; `required` where there is none.
    expected
        Type, range and choices in words.
    description
        One or two sentences.
    section
        Whether it is a section.
    """

    key: str
    value: Any
    default: Any
    expected: str
    description: str
    section: bool
    required: bool = False


def list_settings(prefix: str = "", settings: Settings | None = None) -> list[Setting]:
    """Describe the settings below a prefix, sections before their settings.

    Parameters
    ----------
    prefix
        A section or a setting, e.g. ``stage2`` or ``skeleton_training.window``; all of them where empty.
    settings
        Where the values come from; the defaults where not given.

    Raises
    ------
    CsipError
        There is no such section or setting.
    """
    prefix = prefix.removesuffix(".")
    if prefix and prefix not in FIELDS:
        raise CsipError(f"{prefix}: no such setting or section; did you mean {nearest(prefix)}?")
    chosen = settings or Settings.model_validate({"dataset": {"name": NAME}})
    tree = chosen.model_dump(mode="json")
    return [
        _describe(key, field, tree)
        for key, field in FIELDS.items()
        if not prefix or key == prefix or key.startswith(f"{prefix}.")
    ]


def _describe(key: str, field: FieldInfo, tree: Any) -> Setting:
    section = section_of(field) is not None
    for part in key.split("."):
        tree = tree[part]
    default = None if section or field.is_required() else field.get_default()
    return Setting(
        key=key,
        value=None if section else tree,
        default=list(default) if isinstance(default, tuple) else str(default) if isinstance(default, Path) else default,
        expected=expected(field),
        description=" ".join((field.description or "").split()),
        section=section,
        required=field.is_required() and not section,
    )


def as_yaml(settings: Iterable[Setting]) -> str:
    """Return a settings file with a comment before each setting; of all settings, `load_settings` reads it back."""
    lines: list[str] = []
    open_sections: list[str] = []
    for setting in settings:
        *sections, name = setting.key.split(".")
        for depth, section in enumerate(sections):
            if open_sections[depth : depth + 1] != [section]:
                open_sections[depth:] = [section]
                lines.append(f"{'  ' * depth}{section}:")
        del open_sections[len(sections) :]
        indent = "  " * len(sections)
        if setting.section:
            lines += ["", *_comment(setting.description, indent), f"{indent}{name}:"]
            open_sections.append(name)
        else:
            lines += _comment(f"{setting.description} ({setting.expected})", indent)
            value = yaml.safe_dump([setting.value], default_flow_style=True, width=10**6).strip()
            lines.append(f"{indent}{name}: {value[1:-1]}")
    return "\n".join(lines).lstrip("\n") + "\n"


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, width=116, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def as_markdown(settings: Iterable[Setting]) -> str:
    """Return the page of documentation: a table for each section."""
    listed = list(settings)
    alone = [setting for setting in listed if not setting.section and "." not in setting.key]
    lines = [_PAGE.rstrip(), *(_table(alone) if alone else ())]
    for section in (setting for setting in listed if setting.section):
        inner = [s for s in listed if not s.section and s.key.rpartition(".")[0] == section.key]
        lines += ["", f"## {section.key}", "", section.description, *_table(inner)]
    return "\n".join(lines) + "\n"


def _table(settings: Iterable[Setting]) -> list[str]:
    rows = [
        f"| `{setting.key}` | {'required' if setting.required else f'`{shown(setting.default)}`'} | {setting.expected} "
        f"| {setting.description} |"
        for setting in settings
    ]
    return ["", "| setting | default | expected | description |", "|---|---|---|---|", *rows]
