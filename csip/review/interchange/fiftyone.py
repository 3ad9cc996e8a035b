"""FiftyOne's FiftyOneVideoLabelsDataset: manifest.json, data/ with links to the videos, labels/ in ETA's VideoLabels.

    import fiftyone as fo
    dataset = fo.Dataset.from_dir(OUT, dataset_type=fo.types.FiftyOneVideoLabelsDataset)

Boxes are shares of the picture, frames count from 1. The index of an object is its person over all cameras, and the attribute
``person`` the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from csip.data.names import canonical
from csip.data.numerals import whole
from csip.errors import CsipError
from csip.files import parse_json, write_json
from csip.review.interchange.tracks import PERSON, LabelledTrack, VideoBoxes, by_video, first_frames, reading, stem

_TYPE = "eta.core.datasets.LabeledVideoDataset"
_ATTRIBUTE = "eta.core.data.CategoricalAttribute"


def write_fiftyone(
    tracks: Sequence[LabelledTrack], out: Path, videos: Path, sizes: Mapping[str, tuple[int, int]]
) -> None:
    """Write the data set into a folder.

    Parameters
    ----------
    videos
        The folder that was ingested.
    sizes
        Width and height of each video's picture.

    Raises
    ------
    CsipError
        A video is a folder of pictures, of which FiftyOne makes no video.
    """
    index: list[dict[str, str]] = []
    first = first_frames(tracks)
    (out / "data").mkdir(parents=True)
    for video, here in by_video(tracks).items():
        source = (videos / video if videos.is_dir() else videos).resolve()
        if not source.is_file():
            raise CsipError(
                f"{source}: expected a video file, which FiftyOne shows; choose another format", parameter="format"
            )
        name = _flat(stem(video))
        if any(entry["labels"] == f"labels/{name}.json" for entry in index):
            raise CsipError(f"{source}: another video is called {name}, too; rename one of them")
        data = f"data/{name}{PurePosixPath(video).suffix}"
        (out / data).symlink_to(source)
        write_json(out / f"labels/{name}.json", _labels(video, here, sizes[video], first[video]))
        index.append({"data": data, "labels": f"labels/{name}.json"})
    write_json(out / "manifest.json", {"type": _TYPE, "description": "", "index": index})


def read_fiftyone(
    folder: Path, videos: Mapping[str, int], sizes: Mapping[str, tuple[int, int]]
) -> dict[str, VideoBoxes]:
    """Read the boxes of each video.

    Parameters
    ----------
    videos
        The number of the first frame of each video.
    sizes
        Width and height of each video's picture.

    Raises
    ------
    CsipError
        There is no manifest, or a file of labels is no VideoLabels.
    """
    manifest = folder / "manifest.json"
    with reading(manifest, f"a manifest of {_TYPE}"):
        tree = parse_json(manifest.read_bytes())
        if tree["type"] != _TYPE:
            raise ValueError(f"its type is {tree['type']!r}")
        pairs = [(str(one["data"]), str(one["labels"])) for one in tree["index"]]
    known = {stem(video): video for video in videos} | {_flat(stem(video)): video for video in videos}
    found = {}
    for data, labels in pairs:
        path = PurePosixPath(labels)
        if path.is_absolute() or ".." in path.parts:
            raise CsipError(f"{manifest}: expected labels below the folder, found {labels}")
        with reading(folder / path, "VideoLabels with frames and objects"):
            tree = parse_json((folder / path).read_bytes())
            title = stem(str(tree.get("filename", "")))
            video = known.get(title) or known.get(stem(PurePosixPath(data).name))
            if video is not None:
                found[video] = VideoBoxes.of(_rows(tree, sizes[video], videos[video]))
    return found


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _labels(video: str, tracks: Sequence[LabelledTrack], size: tuple[int, int], first: int) -> dict[str, Any]:
    width, height = size
    frames: dict[int, list[dict[str, Any]]] = {}
    for track in tracks:
        texts = ((PERSON, track.person or ""), ("tracklet", track.name))
        attributes = [{"type": _ATTRIBUTE, "name": name, "value": text} for name, text in texts]
        for frame, (left, top, right, bottom) in zip(
            (track.frames - first + 1).tolist(), track.boxes.tolist(), strict=True
        ):
            frames.setdefault(frame, []).append({
                "type": "eta.core.objects.DetectedObject",
                "label": PERSON,
                "index": track.number,
                "bounding_box": {
                    "top_left": {"x": round(left / width, 6), "y": round(top / height, 6)},
                    "bottom_right": {"x": round(right / width, 6), "y": round(bottom / height, 6)},
                },
                "attrs": {"attrs": attributes},
            })  # fmt: skip
    return {
        "filename": video,
        "frames": {
            str(frame): {"frame_number": frame, "objects": {"objects": objects}}
            for frame, objects in sorted(frames.items())
        },
    }


def _rows(tree: dict[str, Any], size: tuple[int, int], first: int) -> list[tuple[int, list[float], str | None]]:
    rows = []
    for frame, there in tree["frames"].items():
        for one in there.get("objects", {}).get("objects", []):
            if str(one["label"]).lower() != PERSON:
                continue
            corners = (one["bounding_box"][name] for name in ("top_left", "bottom_right"))
            box = [float(corner[axis]) * side for corner in corners for axis, side in zip("xy", size, strict=True)]
            said = {str(a["name"]): str(a["value"]) for a in one.get("attrs", {}).get("attrs", [])}
            person = (
                canonical(said[PERSON]).strip()
                if PERSON in said
                else str(whole(one["index"]))
                if "index" in one
                else ""
            )
            rows.append((whole(frame) + first - 1, box, person or None))
    return rows
