"""Checks of a data set on disk: counts, cameras, lengths, frames, skeletons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from csip.config import Settings
from csip.data.dataset import DISTRACTOR, Dataset, Tracklet, is_image
from csip.data.folder import names_in, unread_parts
from csip.data.frame_check import DecodedFrames, decode_frames, frames_of
from csip.data.index import Tree
from csip.data.labels import LABELS
from csip.data.matching import Matching
from csip.data.names import canonical, look_alikes
from csip.data.published import PUBLISHED
from csip.data.readers import is_labelled, load_dataset
from csip.data.skeleton_readers import LAYOUTS, load_skeleton_set
from csip.errors import CsipError
from csip.monitor import Monitor
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Spread
from pose_cache.plan import changed_tracklets
from pose_cache.store import SkeletonStore

MEND = "correct what is named here; the documentation shows how the files should lie"
AGAIN = "unpack the archive again; a download that was cut short is the usual reason"


class Remedy(Enum):
    """What a stage of the chain can do about a finding; who runs stages knows its command."""

    EXTRACT = "extract the skeletons"
    EXTRACT_ANEW = "replace the skeleton cache"
    NAME_PEOPLE = "cluster the tracklets into people"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    what
        What was looked at.
    text
        What was found.
    fix
        What to do; empty where nothing is wrong.
    hint
        What comes next although nothing is wrong; empty where nothing does.
    remedy
        The stage that does it, where one does.
    """

    what: str
    text: str
    fix: str = ""
    hint: str = ""
    remedy: Remedy | None = None


def inspect(
    settings: Settings, cache: Path, frames: int | None, monitor: Monitor, spread: Spread | None = None
) -> list[Finding]:
    """Look at the index, the frames and the skeletons of a data set.

    Parameters
    ----------
    cache
        Where the skeletons should be.
    frames
        How many frames to decode, chosen at random with a fixed seed; None decodes all. Whether frames are there is always
        asked of all.
    spread
        Who decodes them; not a share.
    """
    if settings.dataset.layout in LAYOUTS:
        return inspect_sequences(settings)
    try:
        dataset = load_dataset(settings.dataset)
        whole = _whole(settings)
    except CsipError as error:
        return [Finding("index", str(error), MEND)]
    everyone = _everyone(whole)
    return [
        *(count_people(whole, settings) if is_labelled(whole) else [_nobody(everyone, settings)]),
        *_layout(settings, everyone),
        _missing(whole.root, everyone),
        _unreadable(
            whole.root,
            len({frame for tracklet in everyone for frame in tracklet.frames}),
            _decode(whole.root, everyone, settings, frames, spread, monitor),
        ),
        _skeletons(cache, dataset),
    ]


def count_people(dataset: Dataset, settings: Settings) -> list[Finding]:
    """Count the identities, cameras and frames of a labelled data set, and say whether its parts fit together."""
    return [_counts(dataset, settings), _cameras(dataset), _lengths(dataset, settings), _identities(dataset)]


def decode_share(settings: Settings, frames: int | None, monitor: Monitor, spread: Spread) -> DecodedFrames:
    """Decode a share of the frames that `inspect` decodes, which finds them done then.

    Raises
    ------
    CsipError
        The data set cannot be read, or has no frames.
    """
    if settings.dataset.layout in LAYOUTS:
        raise CsipError(f"{settings.dataset.path}: skeletons alone have no frames to decode; expected no share")
    whole = _whole(settings)
    return _decode(whole.root, _everyone(whole), settings, frames, spread, monitor)


def _whole(settings: Settings) -> Dataset:
    """Read the data set with training tracklets as they are on the disk."""
    return load_dataset(settings.dataset.model_copy(update={"piece_frames": None}))


def _everyone(dataset: Dataset) -> list[Tracklet]:
    return list({t.name: t for t in (*dataset.train, *dataset.query, *dataset.gallery)}.values())


def _decode(
    root: Path,
    tracklets: Sequence[Tracklet],
    settings: Settings,
    count: int | None,
    spread: Spread | None,
    monitor: Monitor,
) -> DecodedFrames:
    threads = max(settings.runtime.decoders, 1)
    return decode_frames(root, frames_of(tracklets, count), threads, spread or Spread(), monitor)


def inspect_sequences(settings: Settings) -> list[Finding]:
    """Look at a data set of skeletons alone; its readers refuse coordinates that are not finite."""
    try:
        dataset = load_skeleton_set(settings.dataset, settings.runtime.seed)
    except CsipError as error:
        return [Finding("index", str(error), MEND)]
    parts = {"training": dataset.train, "probe": dataset.probe, "gallery": dataset.gallery}
    everything = [sequence for part in parts.values() for sequence in part]
    lengths = {part: np.array([len(s.joints) for s in sequences]) for part, sequences in parts.items()}
    found = {
        "people": len({s.pid for s in everything}),
        "sequences": len(everything),
        "skeletons": sum(len(s.joints) for s in everything),
    }
    text = ", ".join(f"{value:,} {what}" for what, value in found.items()) + f"; {dataset.joint_set}"
    expected = PUBLISHED.get(settings.dataset.name, {})
    wrong = [f"{value:,} {what}, found {found[what]:,}" for what, value in expected.items() if found[what] != value]
    unknown = {s.pid for s in dataset.probe} - {s.pid for s in dataset.gallery}
    # A sensor that has lost a person repeats the last skeleton.
    still = sum(int((np.diff(s.joints, axis=0) == 0).all(axis=(1, 2)).sum()) for s in everything)
    return [
        Finding("counts", text, f"published are {'; '.join(wrong)}: {AGAIN}" if wrong else ""),
        Finding("split", f"{dataset.protocol}; " + ", ".join(f"{len(s):,} {part}" for part, s in parts.items())),
        Finding(
            "frames a sequence",
            "\n".join(f"{part}: {n.min()} to {n.max()}, median {np.median(n):.0f}" for part, n in lengths.items()),
        ),
        Finding("skeletons", f"all finite; {still:,} ({still / found['skeletons']:.1%}) repeat the one before"),
        Finding(
            "people",
            f"{len(unknown):,} people of the probe are not in the gallery" if unknown else "every probe has a match",
            "their sequences can never be found: check the split" if unknown else "",
        ),
    ]


def _counts(dataset: Dataset, settings: Settings) -> Finding:
    found = {
        "training identities": len({t.pid for t in dataset.train}),
        "training tracklets": len(dataset.train),
        "queries": len(dataset.query),
        "gallery tracklets": len(dataset.gallery),
        "queries with a match": int(_matching(dataset).valid().sum()),
        "cameras": len({t.camera for part in (dataset.train, dataset.query, dataset.gallery) for t in part}),
    }
    text = ", ".join(f"{value:,} {what}" for what, value in found.items())
    text += f" ({settings.dataset.gallery}; {sum(t.pid == DISTRACTOR for t in dataset.gallery):,} distractors)"
    policy = settings.dataset.gallery == "without_queries"
    expected = {
        what: value[policy] if isinstance(value, tuple) else value
        for what, value in PUBLISHED.get(settings.dataset.name, {}).items()
    }
    wrong = [f"{value:,} {what}, found {found[what]:,}" for what, value in expected.items() if found[what] != value]
    if wrong:
        return Finding("counts", text, f"published are {'; '.join(wrong)}: {AGAIN}")
    if not found["queries with a match"]:
        return Finding(
            "counts", text, "no query has a match at another camera: check identities, cameras, dataset.gallery"
        )
    return Finding("counts", f"{text}; as published" if expected else text)


def _nobody(tracklets: Sequence[Tracklet], settings: Settings) -> Finding:
    """Look at tracklets without identities."""
    cameras = sorted(Counter(t.camera for t in tracklets).items())
    lengths = np.array([len(t.frames) for t in tracklets])
    return Finding(
        "people",
        f"nobody is named on any of {len(tracklets):,} tracklets: they can be embedded, searched and clustered, but not used for "
        "training or evaluation\n"
        f"cameras (tracklets): {', '.join(f'{camera} ({count:,})' for camera, count in cameras)}\n"
        f"frames per tracklet: {lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}",
        hint=f"cluster the tracklets: that proposes people in {settings.dataset.path / LABELS}, to review and correct",
        remedy=Remedy.NAME_PEOPLE,
    )


def _matching(dataset: Dataset) -> Matching:
    """Return who matches whom in the test, as the scores count it."""
    query, gallery = dataset.query, dataset.gallery
    return Matching(
        [t.pid for t in query], [t.camera for t in query], [t.pid for t in gallery], [t.camera for t in gallery]
    )


def _cameras(dataset: Dataset) -> Finding:
    parts = {"training": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    lines = [
        f"{part}: "
        + ", ".join(f"{camera} ({count:,})" for camera, count in sorted(Counter(t.camera for t in tracklets).items()))
        for part, tracklets in parts.items()
    ]
    seen: dict[int, set[int]] = {}
    for tracklet in dataset.train:
        seen.setdefault(tracklet.pid, set()).add(tracklet.camera)
    single = sum(len(cameras) == 1 for cameras in seen.values())
    lines.append(f"{single:,} of {len(seen):,} training identities were seen by one camera only")
    unknown = {t.camera for t in (*dataset.query, *dataset.gallery)} - {t.camera for t in dataset.train}
    if unknown:
        lines.append(f"tested, but not trained: {', '.join(map(str, sorted(unknown)))}; these get no camera embedding")
    return Finding("cameras (tracklets)", "\n".join(lines))


def _lengths(dataset: Dataset, settings: Settings) -> Finding:
    lines = []
    for part, tracklets in (("training", dataset.train), ("query", dataset.query), ("gallery", dataset.gallery)):
        if not tracklets:
            lines.append(f"{part}: none")
            continue
        lengths = np.array([len(t.frames) for t in tracklets])
        short = int((lengths < settings.clips.frames).sum())
        lines.append(
            f"{part}: {lengths.min()} to {lengths.max()}, median {np.median(lengths):.0f}, {lengths.sum():,} frames; "
            f"{short:,} tracklets shorter than a clip of {settings.clips.frames}"
        )
    return Finding("frames a tracklet", "\n".join(lines))


def _identities(dataset: Dataset) -> Finding:
    trained, tested = ({t.pid: t.name for t in part} for part in (dataset.train, (*dataset.query, *dataset.gallery)))
    shared = sorted(trained.keys() & tested.keys())
    if not shared:
        return Finding("identities", "training and test identities are disjoint")
    example = f"{shared[0]} ({trained[shared[0]]}, {tested[shared[0]]})"
    text = f"{len(shared):,} identities train and are tested, e.g. {example}"
    return Finding("identities", text, "metrics would be of people seen in training: split the data by identity")


def _layout(settings: Settings, tracklets: Sequence[Tracklet]) -> list[Finding]:
    """Look for what an index and the names on the disk cannot both mean."""
    found = []
    owners: dict[str, str] = {}
    twice = [
        (frame, owner, t.name)
        for t in tracklets
        for frame in t.frames
        if (owner := owners.setdefault(frame, t.name)) != t.name
    ]
    if twice:
        frame, one, other = twice[0]
        text = f"{len(twice):,} frames are in two tracklets, e.g. {frame} in {one} and {other}"
        found.append(
            Finding("tracklets", text, "the index is damaged or of another version: each frame is in one tracklet")
        )
    if settings.dataset.layout == "mars":
        mixed = [t for t in tracklets if len({frame.rpartition("F")[0] for frame in t.frames}) > 1]
        if mixed:
            text = f"{len(mixed):,} tracklets hold frames of several tracklets by their names, e.g. {mixed[0].name}"
            found.append(
                Finding("tracklets", text, "the index and the names are of different versions: unpack both again")
            )
    if settings.dataset.layout == "folder" and (beside := unread_parts(settings.dataset.path)):
        text = f"beside train and test there are people in {', '.join(beside)}, which are not read"
        found.append(Finding("folders", text, "move them into train or test, or out of the data set"))
    if settings.dataset.layout == "folder":
        found += _alike(settings.dataset.path)
    return found


def _alike(root: Path) -> list[Finding]:
    """Name people and cameras that are two, and whose names are nearly one."""
    found = []
    for what, names in zip(("people", "cameras"), names_in(root), strict=True):
        if alike := look_alikes(names):
            text = f"{len(alike):,} times {what} have nearly the same name and count as several: {', '.join(alike[0])}"
            found.append(Finding(f"names of {what}", text, hint="where they are one, give them one name"))
    return found


def _missing(root: Path, tracklets: Sequence[Tracklet]) -> Finding:
    tree = Tree(root)
    there: dict[str, set[str]] = {}
    missing, total = [], 0
    for tracklet in tracklets:
        for frame in tracklet.frames:
            folder, _, name = frame.rpartition("/")
            if folder not in there:
                there[folder] = set(tree.files(folder))
            total += 1
            if name not in there[folder]:
                missing.append(frame)
    frames = {frame for tracklet in tracklets for frame in tracklet.frames}
    others = [
        f"{folder}/{name}"
        for folder, names in there.items()
        for name in sorted(names)
        if f"{folder}/{name}" not in frames
    ]
    known = sum(map(is_image, others))
    text = f"all {total:,}, in {len(there):,} folders"
    if others:
        text += f"; {len(others):,} more files there are no frames of these tracklets ({known:,} pictures), e.g. {others[0]}"
    if not missing:
        return Finding("frames there", text)
    text = f"{len(missing):,} of {total:,} are missing, e.g. {root / missing[0]}"
    if _has_twin(tree, missing[0]):
        return Finding(
            "frames there", text, "the names differ from those on the disk in their Unicode form (NFC, NFD): rename"
        )
    return Finding("frames there", text, AGAIN)


def _has_twin(tree: Tree, frame: str) -> bool:
    """Whether a missing frame is on the disk under another Unicode form of its path."""
    folder = ""
    *parents, name = frame.split("/")
    for parent in parents:
        same = [found for found in tree.folders(folder) if canonical(found) == canonical(parent)]
        if not same:
            return False
        folder = f"{folder}/{same[0]}".lstrip("/")
    return canonical(name) in map(canonical, tree.files(folder))


def _unreadable(root: Path, total: int, found: DecodedFrames) -> Finding:
    text = f"{len(found.frames):,} of {total:,} decoded: {found}"
    if not found.bad:
        return Finding("frames readable", text)
    frame, kind = found.bad[0]
    return Finding(
        "frames readable", f"{text}; e.g. {root / frame} ({kind.label})", f"{AGAIN}, or take these frames out"
    )


def _skeletons(cache: Path, dataset: Dataset) -> Finding:
    if not cache.exists():
        return Finding("skeletons", f"{cache}: none yet; training needs them", remedy=Remedy.EXTRACT)
    try:
        with SkeletonStore(cache) as store:
            wanted, who = (
                (dataset.train, "training tracklets") if is_labelled(dataset) else (dataset.query, "tracklets")
            )
            known = [t for t in wanted if t.name in store]
            paired = valid = without = 0
            for tracklet in known:
                posed = dict(zip(store.frames(tracklet.name), store.valid(tracklet.name).tolist(), strict=True))
                found = [posed[frame] for frame in tracklet.frames if frame in posed]
                paired, valid, without = paired + len(found), valid + sum(found), without + (not any(found))
            joint_set = store.joint_set.name
            changed = changed_tracklets(store, [t.name for t in known], dataset.root)
            rows = {name: row for row, name in enumerate(store.names)}
            damaged = [t.name for t in known if not store.is_intact(rows[t.name]) or not _finite(store, t.name)]
    except PoseCacheError as error:
        return Finding("skeletons", str(error), "make the cache again", remedy=Remedy.EXTRACT_ANEW)
    frames = sum(len(t.frames) for t in wanted)
    text = (
        f"{len(known):,} of {len(wanted):,} {who}, {paired:,} of {frames:,} frames, "
        f"{valid / max(frames, 1):.1%} with a pose ({joint_set}); {without:,} tracklets without any"
    )
    if damaged:
        text += f"; {len(damaged):,} tracklets are damaged, e.g. {damaged[0]}"
        return Finding(
            "skeletons", text, "extract the skeletons again, which makes the damaged ones anew", remedy=Remedy.EXTRACT
        )
    if changed:
        text += f"; pictures of {len(changed):,} tracklets have changed since, e.g. of {min(changed)}"
        return Finding(
            "skeletons", text, "extract the skeletons again; only those are estimated anew", remedy=Remedy.EXTRACT
        )
    if len(known) < len(wanted) or paired < frames:
        return Finding(
            "skeletons", text, "the cache was made from other data: extract the skeletons again", remedy=Remedy.EXTRACT
        )
    return Finding("skeletons", text)


def _finite(store: SkeletonStore, name: str) -> bool:
    return bool(np.isfinite(store.joints(name)[store.valid(name)]).all())
