"""Annotations in COCO's layout: pycocotools reads them alike."""

from pycocotools.coco import COCO

__all__ = ["COCO"]
