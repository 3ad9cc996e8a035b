"""CVAT's tracks, "CVAT for video 1.1": one XML file per video, a track per tracklet, whose attribute ``person`` is the name.

    <track id="0" label="person"><box frame="0" outside="0" ... xtl ytl xbr ybr><attribute name="person">Anna</attribute></box>

CVAT counts frames from 0, and numbers tracks anew: the identity is the attribute, the same word in every video.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement, TreeBuilder, XMLParser

from csip.data.names import canonical
from csip.data.numerals import parse_number, whole
from csip.errors import CsipError
from csip.files import write_bytes
from csip.review.interchange.tracks import PERSON, LabelledTrack, VideoBoxes, by_video, first_frames, reading, stem

_EXPECTED: Final = "CVAT for video 1.1: annotations with tracks of boxes"
_CORNERS: Final = ("xtl", "ytl", "xbr", "ybr")
_NO_XML: Final = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_cvat(tracks: Sequence[LabelledTrack], out: Path) -> None:
    """Write VIDEO.xml of each video into a folder.

    Raises
    ------
    CsipError
        A name holds a character that XML cannot.
    """
    first = first_frames(tracks)
    for video, here in by_video(tracks).items():
        root = Element("annotations")
        SubElement(root, "version").text = "1.1"
        task = SubElement(SubElement(root, "meta"), "task")
        size = max(int(track.frames[-1]) for track in here) - first[video] + 1
        _fill(task, {"name": video, "size": str(size), "mode": "interpolation"})
        label = SubElement(SubElement(task, "labels"), "label")
        _fill(label, {"name": PERSON})
        attributes = SubElement(label, "attributes")
        for name in (PERSON, "tracklet"):
            about = {"name": name, "mutable": "False", "input_type": "text", "default_value": "", "values": ""}
            _fill(SubElement(attributes, "attribute"), about)
        for number, track in enumerate(here):
            _add_track(root, number, track, first[video])
        ElementTree.indent(root, " ")
        write_bytes(out / f"{stem(video)}.xml", ElementTree.tostring(root, "utf-8", xml_declaration=True))


def read_cvat(path: Path, videos: Mapping[str, int]) -> dict[str, VideoBoxes]:
    """Read VIDEO.xml of each video in a folder; or one file, of the only video or of the one that its task is called after.

    Parameters
    ----------
    videos
        The number of the first frame of each video.

    Raises
    ------
    CsipError
        A file is no such XML, or it is not known which video it is of.
    """
    if path.is_dir():
        files = {video: path / f"{stem(video)}.xml" for video in videos}
        return {video: _boxes(_root(file), file, videos[video]) for video, file in files.items() if file.is_file()}
    root = _root(path)
    title = root.findtext("meta/task/name", "")
    named = [video for video in videos if stem(title) in (video, stem(video)) or path.stem == stem(video)]
    chosen = named if len(named) == 1 else list(videos) if len(videos) == 1 else []
    if not chosen:
        raise CsipError(
            f"{path}: of which video is it? Its task is called {title!r}; expected {', '.join(list(videos)[:5])}; put it "
            "into a folder as VIDEO.xml, and name the folder"
        )
    return {chosen[0]: _boxes(root, path, videos[chosen[0]])}


def _fill(element: Element, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        SubElement(element, name).text = _text(text)


def _text(text: str) -> str:
    if _NO_XML.search(text):
        raise CsipError(f"the name {text!r} holds a character that XML cannot; rename it")
    return text


def _add_track(root: Element, number: int, track: LabelledTrack, first: int) -> None:
    element = SubElement(root, "track", {"id": str(number), "label": PERSON, "source": "manual"})
    frames, boxes = (track.frames - first).tolist(), track.boxes.round(2).tolist()
    for at, (frame, box) in enumerate(zip(frames, boxes, strict=True)):
        _add_box(element, frame, box, track, outside=False)
        if at + 1 == len(frames) or frames[at + 1] > frame + 1:
            _add_box(element, frame + 1, box, track, outside=True)  # otherwise it would stay where it is


def _add_box(element: Element, frame: int, box: Sequence[float], track: LabelledTrack, outside: bool) -> None:
    about = {"frame": str(frame), "outside": str(int(outside)), "occluded": "0", "keyframe": "1", "z_order": "0"}
    place = SubElement(
        element, "box", about | {side: f"{value:.2f}" for side, value in zip(_CORNERS, box, strict=True)}
    )
    for name, text in ((PERSON, track.person or ""), ("tracklet", track.name)):
        SubElement(place, "attribute", {"name": name}).text = _text(text)


def _root(path: Path) -> Element:
    with reading(path, _EXPECTED):
        content = path.read_bytes()
        if b"<!ENTITY" in content:  # names for texts, of which CVAT has none, can be nested to fill the memory
            raise ValueError("it declares entities")
        try:
            root = ElementTree.fromstring(content, XMLParser(target=TreeBuilder()))
        except ElementTree.ParseError as error:
            raise ValueError(str(error)) from error
        if root.tag != "annotations":
            raise ValueError(f"its outermost element is {root.tag}")
        if root.find("track") is None and root.find("image") is not None:
            raise ValueError("it is CVAT for images; export the task as CVAT for video 1.1")
        return root


def _boxes(root: Element, path: Path, first: int) -> VideoBoxes:
    with reading(path, _EXPECTED):
        return VideoBoxes.of([row for track in root.iter("track") for row in _rows(track, first)])


def _rows(track: Element, first: int) -> Iterable[tuple[int, list[float], str | None]]:
    """Yield the boxes that are in the picture; an attribute that does not change may stand at the track or at one box alone."""
    if track.get("label", "").lower() != PERSON:
        return
    boxes = [box for box in track.iter("box") if box.get("outside", "0") != "1"]
    said = [one.text or "" for one in track.iter("attribute") if one.get("name") == PERSON and (one.text or "").strip()]
    for box in boxes:
        own = next(
            (one.text or "" for one in box.iter("attribute") if one.get("name") == PERSON), said[0] if said else ""
        )
        yield (
            whole(box.attrib["frame"]) + first,
            [parse_number(box.attrib[corner]) for corner in _CORNERS],
            canonical(own).strip() or None,
        )
