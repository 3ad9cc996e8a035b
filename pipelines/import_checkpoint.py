"""Weights of the method's authors become a stage-2 run of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from csip.config import Settings, dump_settings, load_settings
from csip.errors import CsipError
from csip.files import digest, write_json, write_text
from csip.models.authors import JOINT_SET, UNKNOWN, Imported, import_reference, read_reference
from csip.models.checkpoints import MODEL, save_model
from csip.version import code_revision
from pipelines.console import console
from pose_cache.shipped import CONFIGS

PAPER = CONFIGS / "paper"


def paper_settings(dataset: str | None, config: Path | None, overrides: list[str]) -> Settings:
    """Return the authors' settings for a data set, or those of a file.

    Raises
    ------
    CsipError
        Neither is given, or the settings cannot be read.
    """
    named = [f"dataset.name={dataset}"] if dataset else []
    if config is not None:
        return load_settings(config, [*named, *overrides])
    if dataset is None:
        known = sorted(path.stem for path in PAPER.glob("*.yaml") if path.stem != "common")
        raise CsipError(
            f"expected the data set that the weights were trained on, found none: --dataset {', '.join(known)} or another"
        )
    own = PAPER / f"{dataset}.yaml"
    return load_settings(own if own.exists() else PAPER / "common.yaml", [*named, *overrides])


def camera_numbers(text: str | None) -> list[int] | None:
    """Read ``1,2,3``; None stays None.

    Raises
    ------
    CsipError
        It is not a list of numbers.
    """
    if text is None:
        return None
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise CsipError(f"--cameras {text}: expected numbers with commas between, e.g. 1,2,3") from error


def run(file: Path, out: Path, settings: Settings, cameras: list[int] | None, overwrite: bool) -> None:
    """Write ``OUT/model.safetensors``, which ``csip evaluate`` reads, and ``OUT/import.json``: what became of every key.

    Parameters
    ----------
    file
        A torch state dict.
    out
        ``RUN/stage2``.
    cameras
        The data set's number of each camera, in the order of the camera embedding's rows; 1, 2, ... by default.

    Raises
    ------
    CsipError
        The file or the numbers of cameras do not fit, or a model is there already and ``overwrite`` is not given.
    """
    path = out / MODEL
    if path.exists() and not overwrite:
        raise CsipError(f"{path}: already exists; give --overwrite to replace it, or another --out folder")
    imported = import_reference(read_reference(file), settings)
    numbers = cameras if cameras is not None else list(range(1, imported.cameras + 1))
    if imported.cameras != len(set(numbers)):
        raise CsipError(
            f"{file}: a camera embedding of {imported.cameras} rows, but --cameras names {len(set(numbers))}: expected "
            "one number per row, in their order"
        )
    source = {"file": file.name, "sha256": digest(file)}
    rows = {str(camera): row for row, camera in enumerate(numbers)}
    save_model(
        path,
        imported.model.state_dict(),
        {
            "kind": "stage2",
            "dataset": settings.dataset.name,
            "identities": imported.identities,
            "cameras": rows,
            "joint_set": JOINT_SET,
            "width": imported.model.vision.embed_dim,
            "imported": source,
            "settings": imported.settings.model_dump(mode="json"),
            "revision": code_revision(),
        },
    )
    write_text(out / "config.yaml", dump_settings(imported.settings))
    write_json(out / "import.json", report(imported, source, rows))
    console.print(fates_table(imported, file))
    unknown = [key.name for key in imported.keys if key.why == UNKNOWN]
    if unknown:
        console.print(f"  not in the authors' code, and not used: {', '.join(unknown)}", markup=False, soft_wrap=True)
    clips = imported.settings.clips
    console.print(
        f"import-checkpoint: {imported.identities} identities, {imported.cameras} cameras, images of "
        f"{clips.height}x{clips.width} -> {path}\n"
        "  to score as its authors do, without norms of the parts: csip evaluate ... --set evaluation.part_norm=false",
        soft_wrap=True,
    )


def report(imported: Imported, source: dict[str, str], cameras: dict[str, int]) -> dict[str, Any]:
    """Lay out the import for programs: ``source``, ``counts``, ``keys``, ``initial``, ``cameras``."""
    statuses = ("used", "renamed", "left over")
    return {
        "source": source,
        "counts": {status: sum(key.status == status for key in imported.keys) for status in statuses},
        "keys": [
            {"name": k.name, "shape": list(k.shape), "status": k.status, "becomes": list(k.becomes), "why": k.why}
            for k in imported.keys
        ],
        "initial": list(imported.initial),
        "cameras": cameras,
        "identities": imported.identities,
    }


def fates_table(imported: Imported, file: Path) -> Table:
    """Lay out the import for people, one row a module of the file."""
    table = Table(title=f"{file.name}: {len(imported.keys)} parameters", title_justify="left")
    table.add_column("theirs")
    table.add_column("parameters", justify="right")
    table.add_column("values", justify="right")
    table.add_column("ours")
    rows: dict[tuple[str, str], list[int]] = {}
    for key in imported.keys:
        fate = key.why and f"left over ({key.why})"
        fate = fate or f"{key.status}: {', '.join(dict.fromkeys(name.partition('.')[0] for name in key.becomes))}"
        row = rows.setdefault((key.name.partition(".")[0], fate), [0, 0])
        size = 1
        for side in key.shape:
            size *= side
        row[0] += 1
        row[1] += size
    for (module, fate), (count, numbers) in rows.items():
        table.add_row(module, str(count), f"{numbers:,}", fate)
    table.add_row("", str(len(imported.initial)), "", "ours alone: initial values, for training alone")
    return table
