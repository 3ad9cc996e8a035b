"""What the command line adds to the libraries' errors: they name a parameter, and only here is known which option it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pose_cache.pieces import Share

# Parameters whose option has another name, or needs a sentence; the others' options are called like them.
_ADVICE = {
    "overwrite": "give --overwrite to train it anew, or another --run folder",
    "settings": "--set SECTION.KEY=VALUE",
    "share": "`csip skeletons --shard JOB/JOBS`",
    "skeletons": "`csip skeletons` makes them",
    "test_skeletons": "`csip skeletons --test-too` extracts them",
    "reading.classes": "--boxes-classes",
    "reading.coordinates": "--boxes-coordinates",
    "reading.format": "--boxes-format",
    "reading.picture": "--boxes-picture",
}


def advice(parameter: str) -> str:
    """Return what follows an error's message about a parameter; empty where there is none."""
    return f" ({_ADVICE.get(parameter, f'--{parameter}')})" if parameter else ""


def share_done(share: Share, out: Path) -> str:
    """Say that a share is done, and what makes the whole when all are."""
    return f"share {share} is done; --merge writes {out} when all {share.count} are"
