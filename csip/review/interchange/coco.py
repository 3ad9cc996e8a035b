"""COCO for videos: one annotations.json with videos, images, tracks over all cameras, and the names of the people.

{"videos": [{"id": 1, "name": "hall/monday.mp4"}],
 "images": [{"id": 1, "video_id": 1, "frame_id": 1, "file_name": "hall/monday/000001.jpg"}],
 "annotations": [{"id": 1, "image_id": 1, "video_id": 1, "category_id": 1, "track_id": 3, "bbox": [left, top, width, height],
                  "area": 900.0, "iscrowd": 0, "attributes": {"tracklet": "hall/monday-0001"}}],
 "categories": [{"id": 1, "name": "person"}],
 "people": [{"track_id": 3, "name": "Anna"}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csip.data.names import canonical
from csip.data.numerals import whole
from csip.errors import CsipError
from csip.files import parse_json, write_json
from csip.review.interchange.tracks import PERSON, LabelledTrack, VideoBoxes, by_video, reading, stem

FILE = "annotations.json"


def write_coco(tracks: Sequence[LabelledTrack], out: Path, sizes: Mapping[str, tuple[int, int]]) -> None:
    """Write the file into a folder.

    Parameters
    ----------
    sizes
        Width and height of each video's picture, where they are known.
    """
    tree: dict[str, list[dict[str, Any]]] = {
        "videos": [],
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": PERSON}],
        "people": [{"track_id": n, "name": name} for n, name in sorted({(t.number, t.person or "") for t in tracks})],
    }
    for at, (video, here) in enumerate(by_video(tracks).items(), start=1):
        size = dict(zip(("width", "height"), sizes.get(video, ()), strict=False))
        tree["videos"].append({"id": at, "name": video, **size})
        images: dict[int, int] = {}
        for frame in sorted({frame for track in here for frame in track.frames.tolist()}):
            images[frame] = len(tree["images"]) + 1
            about = {
                "id": images[frame],
                "video_id": at,
                "frame_id": frame,
                "file_name": f"{stem(video)}/{frame:06d}.jpg",
            }
            tree["images"].append(about | size)
        for track in here:
            for frame, box in zip(track.frames.tolist(), track.boxes.round(3).tolist(), strict=True):
                width, height = round(box[2] - box[0], 3), round(box[3] - box[1], 3)
                tree["annotations"].append({
                    "id": len(tree["annotations"]) + 1, "image_id": images[frame], "video_id": at, "category_id": 1,
                    "track_id": track.number, "bbox": [box[0], box[1], width, height], "area": round(width * height, 3),
                    "iscrowd": 0, "attributes": {"tracklet": track.name},
                })  # fmt: skip
    write_json(out / FILE, tree)


def read_coco(path: Path, videos: Sequence[str]) -> dict[str, VideoBoxes]:
    """Read the boxes of each video from a file, or from ``annotations.json`` in a folder.

    A track that ``people`` does not name is a person of its number.

    Raises
    ------
    CsipError
        It is no such JSON.
    """
    path = path / FILE if path.is_dir() else path
    with reading(path, "COCO's JSON with videos, images, annotations that have a track_id, and categories"):
        tree = parse_json(path.read_bytes())
        known = {stem(video): video for video in videos}
        mine = {one["id"]: known.get(stem(str(one["name"]))) for one in tree["videos"]}
        images = {one["id"]: (mine[one["video_id"]], whole(one["frame_id"])) for one in tree["images"]}
        label = {one["id"] for one in tree["categories"] if str(one["name"]).lower() == PERSON}
        if not label:
            raise CsipError(f"{path}: expected a category called {PERSON}, found none")
        names = {one["track_id"]: canonical(str(one["name"])) or None for one in tree.get("people", [])}
        rows: dict[str, list[tuple[int, list[float], str | None]]] = {video: [] for video in mine.values() if video}
        for one in tree["annotations"]:
            video, frame = images[one["image_id"]]
            if video is not None and one["category_id"] in label:
                left, top, width, height = map(float, one["bbox"])
                number = one["track_id"]
                person = names[number] if number in names else str(whole(number))
                rows[video].append((frame, [left, top, left + width, top + height], person))
        return {video: VideoBoxes.of(boxes) for video, boxes in rows.items()}
