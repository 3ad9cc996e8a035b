"""MOTChallenge's truth: OUT/VIDEO/gt/gt.txt, whose ids are people over all cameras; ``people.csv`` has their names.

frame,id,left,top,width,height,1,1,1        frames from 1; a pedestrian, fully visible
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from csip.errors import CsipError
from csip.files import write_text
from csip.review.interchange.tracks import LabelledTrack, VideoBoxes, by_video, read_people, stem, write_people
from csip.video.box_raw import BoxesOptions
from csip.video.boxes import read_boxes


def write_mot(tracks: Sequence[LabelledTrack], out: Path) -> None:
    """Write the files of all videos into a folder."""
    for video, here in by_video(tracks).items():
        rows = [
            (frame, track.number, *np.round([*box[:2], *(box[2:] - box[:2])], 3).tolist())
            for track in here
            for frame, box in zip(track.frames.tolist(), track.boxes, strict=True)
        ]
        lines = [",".join(f"{value:.10g}" for value in row) + ",1,1,1\n" for row in sorted(rows)]
        write_text(out / stem(video) / "gt/gt.txt", "".join(lines))
    write_people(out, tracks)


def read_mot(folder: Path, videos: Sequence[str]) -> dict[str, VideoBoxes]:
    """Read VIDEO/gt/gt.txt or VIDEO.txt of each video, in any dialect of text that `csip ingest` reads.

    Raises
    ------
    CsipError
        A file cannot be used, or its boxes have no ids.
    """
    names = read_people(folder)
    found = {}
    for video in videos:
        base = folder / stem(video)
        path = next((one for one in (base / "gt/gt.txt", base.with_name(f"{base.name}.txt")) if one.is_file()), None)
        if path is None:
            continue
        given = read_boxes(path, BoxesOptions(first_frame=1))  # which leaves the numbers as they are
        if len(given.frames) and not given.tracked:
            raise CsipError(f"{path}: expected an id in every line, found -1; a tracker's result or a truth has ids")
        people = [names.get(number, number) for number in map(str, given.tracks.tolist())]
        found[video] = VideoBoxes(given.frames, given.boxes, people)
    return found
