"""Atomic writes and content digests of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pose_cache.files import atomic, flush, write_bytes, write_json, write_text

__all__ = ["atomic", "digest", "flush", "write_bytes", "write_json", "write_text"]


def digest(path: Path) -> str:
    """SHA-256 of a file, first 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
