"""What `csip ingest` has written."""

from __future__ import annotations

import csv
from pathlib import Path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "tracklets.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def content(out: Path) -> dict[str, bytes]:
    """What has to be equal: the table and the crops, and nothing that was left half done."""
    files = [out / "tracklets.csv", *out.glob("crops/**/*"), *(out / ".ingest/work").glob("**/*")]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files if file.is_file()}
