"""Boxes in JSON as COCO has them for videos: images with a number in a video, annotations, categories, optionally videos.

{"videos": [{"id": 1, "name": "hall/monday"}],
 "images": [{"id": 7, "video_id": 1, "frame_id": 1, "file_name": "...", "width": 1920, "height": 1080}],
 "annotations": [{"image_id": 7, "category_id": 1, "track_id": 3, "bbox": [left, top, width, height]}],
 "categories": [{"id": 1, "name": "person"}]}
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from csip.data.names import canonical
from csip.data.numerals import whole
from csip.errors import CsipError
from csip.files import parse_json
from csip.video.box_raw import PEOPLE, UNIT, BoxesOptions, RawBoxes

_TRACK: Final = ("track_id", "instance_id", "object_id", "tracking_id")
_FRAME: Final = ("frame_id", "frame_index", "frame_number", "frame", "index")


def read_coco(path: Path, video: str, options: BoxesOptions) -> RawBoxes:
    """Read a video's boxes.

    Parameters
    ----------
    path : Path
        The file; of one video, or of several.
    video : str
        The video's name: its path below the folder of videos.
    options : BoxesOptions
        Classes that are people, where none is called person.

    Raises
    ------
    CsipError
        It is no such JSON, holds nothing of this video, or no category is known to be people.
    """
    try:
        tree = parse_json(path.read_bytes())
        images, annotations = tree["images"], tree["annotations"]
        categories = {one["id"]: str(one["name"]) for one in tree.get("categories", [])}
        mine = _images_of(tree, video, path)
        return _boxes(path, mine, images, annotations, categories, options) if images else _nothing(path)
    except CsipError:
        raise
    except ValueError as error:
        raise CsipError(f"{path}: not a JSON file of boxes ({error})") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise CsipError(
            f"{path}: not COCO's JSON for videos: expected images with id and frame_id or numbered file names, annotations with "
            f"image_id, category_id and bbox, and categories with id and name; {type(error).__name__}: {error}"
        ) from error


def holds(path: Path, video: str) -> bool:
    """Whether a JSON file has images of a video."""
    try:
        tree = parse_json(path.read_bytes())
        return bool(_images_of(tree, video, path))
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError):
        return False


def _nothing(path: Path) -> RawBoxes:
    raise CsipError(f"{path}: it lists no images")


def _images_of(tree: dict[str, Any], video: str, path: Path) -> list[dict[str, Any]]:
    """Return the images of a video: by the videos' names, else by the images' folders, else all where there is one video."""
    images = list(tree["images"])
    wanted = PurePosixPath(video)
    names = set(map(canonical, (str(wanted), str(wanted.with_suffix("")), wanted.name, wanted.stem)))
    videos = {one["id"]: canonical(str(one.get("name", one.get("file_name", "")))) for one in tree.get("videos", [])}
    if videos:
        ids = {key for key, name in videos.items() if {name, str(PurePosixPath(name).with_suffix(""))} & names}
        found = [image for image in images if image.get("video_id") in ids]
        if len(videos) > 1 or found:
            return found if found or canonical(path.stem) not in names else _all_of_one(images, path)
    folders = {str(PurePosixPath(image["file_name"]).parent) for image in images}
    if len(folders) > 1:
        return [image for image in images if names & {_sequence(image), PurePosixPath(_sequence(image)).name}]
    of_one = canonical(path.stem) in names or {canonical(PurePosixPath(one).name) for one in folders} & names
    return images if of_one or not folders - {"."} else []


def _all_of_one(images: list[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    if len({image.get("video_id") for image in images}) > 1:
        raise CsipError(f"{path}: has several videos, and none of them has the name of this one")
    return images


def _sequence(image: dict[str, Any]) -> str:
    folder = PurePosixPath(image["file_name"]).parent
    return canonical(str(folder.parent if folder.name == "img1" else folder))


def _boxes(
    path: Path,
    images: list[dict[str, Any]],
    everything: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    categories: dict[Any, str],
    options: BoxesOptions,
) -> RawBoxes:
    if not images:
        raise CsipError(f"{path}: it has no images of this video")
    frames = {image["id"]: _number(image, order) for order, image in enumerate(images)}
    numbers: dict[int, Any] = {}
    for key, number in frames.items():
        if numbers.setdefault(number, key) != key:
            raise CsipError(
                f"{path}: its images {numbers[number]!r} and {key!r} are both frame {number}; expected a frame_id of "
                "each, or a video_id or a folder in file_name that tells videos apart"
            )
    rows, orphans = _annotations_of(frames, everything, annotations, path)
    values = np.array([[float(value) for value in one["bbox"]] for one in rows], float).reshape(-1, 4)
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise CsipError(
            f"{path}: annotation {rows[bad].get('id', bad)}: its bbox is {rows[bad]['bbox']}; expected finite numbers"
        )
    sizes = {(image["width"], image["height"]) for image in images if "width" in image and "height" in image}
    if len(sizes) > 1 and len(values) and np.abs(values).max() > UNIT:
        values = _shares(values, rows, images, path)
    people = _people(path, categories, options)
    corners = bool(len(values)) and bool((values[:, 2:] > values[:, :2]).all())
    raw = RawBoxes(
        "coco",
        np.array([frames[one["image_id"]] for one in rows], np.int64),
        np.array([_track(one) for one in rows], np.int64),
        values,
        np.array([float(one.get("score", one.get("conf", 1.0))) for one in rows], float),
        [f"annotation {one.get('id', at)}" for at, one in enumerate(rows)],
        classes=[categories.get(one.get("category_id"), str(one.get("category_id"))) for one in rows],
        people=people,
        coordinates="" if corners and options.coordinates == "auto" else options.coordinates.replace("auto", "xywh"),
        normalised=bool(len(values) and np.abs(values).max() <= UNIT),
        size=sizes.pop() if len(sizes) == 1 else None,
        first=0 if min(numbers) == 0 else None,
    )
    first = min(numbers)
    if sorted(numbers) == list(range(first, first + len(numbers))) and first in (0, 1):
        raw.length = len(numbers)
    if orphans:
        raw.dropped["boxes: of an image that is not listed"] = orphans
    crowd = np.array([bool(one.get("iscrowd") or one.get("ignore")) for one in rows], bool)
    raw.select(~crowd, "boxes: a crowd, or marked to be ignored")
    return raw


def _annotations_of(
    frames: dict[Any, int], images: list[dict[str, Any]], annotations: list[dict[str, Any]], path: Path
) -> tuple[list[dict[str, Any]], int]:
    """Return the annotations of a video's images, and how many there are of no image at all."""
    listed = {image["id"] for image in images}
    rows = [one for one in annotations if one["image_id"] in frames]
    orphans = sum(one["image_id"] not in listed for one in annotations)
    if orphans and orphans == len(annotations):
        raise CsipError(
            f"{path}: none of its annotations is of an image that it lists: the first image_id is "
            f"{annotations[0]['image_id']!r}, the first image's id {images[0]['id']!r}"
        )
    wrong = next((one for one in rows if len(one["bbox"]) != 4), None)
    if wrong is not None:
        raise CsipError(
            f"{path}: annotation {wrong.get('id')}: its bbox has {len(wrong['bbox'])} numbers; expected left, top, width, height"
        )
    return rows, orphans


def _shares(values: np.ndarray, rows: list[dict[str, Any]], images: list[dict[str, Any]], path: Path) -> np.ndarray:
    """Return boxes of images of several sizes as shares of theirs."""
    sizes = {image["id"]: (image.get("width"), image.get("height")) for image in images}
    own = np.array([sizes[one["image_id"]] for one in rows], float)
    if not (own >= 1).all():
        raise CsipError(
            f"{path}: its images are of several sizes, and some have none; expected a width and a height of each"
        )
    return values / np.tile(own, 2)


def _people(path: Path, categories: dict[Any, str], options: BoxesOptions) -> tuple[str, ...]:
    if options.classes is not None:
        return tuple(categories.get(int(one), one) if one.isdecimal() else one for one in options.classes)
    found = tuple(name for name in categories.values() if name.lower() in PEOPLE)
    if not found:
        raise CsipError(
            f"{path}: none of its categories is called person or pedestrian ({', '.join(list(categories.values())[:8])}); give "
            "those that are people, e.g. 1",
            parameter="reading.classes",
        )
    return found


def _number(image: dict[str, Any], order: int) -> int:
    for name in _FRAME:
        if image.get(name) is not None:
            return whole(image[name])
    digits = re.findall(r"\d+", PurePosixPath(str(image.get("file_name", ""))).stem)
    return int(digits[-1]) if digits else order + 1


def _track(annotation: dict[str, Any]) -> int:
    inside = annotation.get("attributes") or {}
    for place in (annotation, inside):
        for name in _TRACK:
            if place.get(name) is not None:
                return whole(place[name])
    return -1
