"""Scores in COCO's manner: xtcocotools' own have arguments that pycocotools' lack."""

from typing import Any

from pose_cache.standins import missing

__all__ = ["COCOeval"]


class COCOeval:
    """Raises an error that says how to get the compiled package."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise missing("xtcocotools' COCOeval")
