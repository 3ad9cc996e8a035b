"""What the command line adds to the libraries' errors.

They name a parameter, or what to make first; only here is known which option or command that is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pose_cache.pieces import Share

# Commands that make what is missing or damaged, or that tell more.
COMMANDS = {
    "changed_skeletons": "rerun `csip skeletons`",
    "damaged_skeletons": "`csip skeletons verify` lists what is damaged, and `csip skeletons` makes it again",
    "descriptors": "`csip embed` and `csip evaluate` make it",
    "device": "`csip doctor` tells why",
    "metrics": "`csip evaluate` makes it",
    "onnx": "`csip export` makes it",
    "people": "`csip cluster` proposes people for you to look through and correct",
    "pictures": "rerun `csip embed`",
    "skeleton": "`csip train-skeleton` makes it",
    "skeletons": "`csip skeletons` makes them",
    "skeletons_alone": "`csip train-skeleton` and `csip evaluate` use it",
    "stage1": "`csip train-stage1` makes it",
    "stage2": "`csip train-stage2` makes it",
    "test_skeletons": "`csip skeletons --test-too` extracts them",
    "versions": "`csip doctor` lists the versions",
}
# Parameters whose option has another name, or needs a sentence; the others' options are called like them.
OPTIONS = {
    "overwrite": "give --overwrite to train it anew, or another --run folder",
    "second_look": "give --second-look to score it all the same; metrics and report then say so",
    "settings": "--set SECTION.KEY=VALUE",
    "share": "`csip skeletons --shard JOB/JOBS`",
    "reading.classes": "--boxes-classes",
    "reading.coordinates": "--boxes-coordinates",
    "reading.format": "--boxes-format",
    "reading.picture": "--boxes-picture",
}


def advice(parameter: str) -> str:
    """Return what follows an error's message about a parameter; empty where there is none."""
    if parameter in COMMANDS:
        return f"; {COMMANDS[parameter]}"
    return f" ({OPTIONS.get(parameter, f'--{parameter}')})" if parameter else ""


def share_done(share: Share, out: Path) -> str:
    """Say that a share is done, and what makes the whole when all are."""
    return f"share {share} is done; --merge writes {out} when all {share.count} are"
