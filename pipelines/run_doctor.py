"""`csip doctor`: the installation, or a data set."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from pose_cache.pieces import Spread


def run(settings: Settings | None, cache: Path | None, frames: int | None, spread: Spread | None = None) -> bool:
    """Check a data set, or without settings the installation; return whether all is well.

    Parameters
    ----------
    cache
        The data set's skeletons; None for ``skeletons.h5`` in its folder.
    frames
        How many frames to decode; None for all.
    spread
        Who decodes them, and which share of them.
    """
    # The checks of the installation import MMPose, which those of a data set can do without.
    if settings is None:
        from pipelines import check_installation

        return check_installation.run()
    from pipelines import check_dataset, paths

    return check_dataset.run(settings, paths.skeleton_file(settings, cache), frames, spread)
