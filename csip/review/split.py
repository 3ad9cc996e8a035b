"""Train, query and gallery from reviewed labels, by a stated rule.

The people who were seen by two cameras or more are divided at random, by a seed, into those who train and those who are tested.
People of one camera train, since nobody can find them at another. Every tracklet of a tested person is a query and in the
gallery, and is ranked against the other cameras (part ``test``). Tracklets without a person are distractors in the gallery.
Tracklets that show several people or nobody are in no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from csip.data.csv_table import format_rows, parse_table
from csip.data.folder import TABLE
from csip.data.names import canonical
from csip.errors import CsipError
from csip.files import write_text


@dataclass(frozen=True)
class Split:
    """The part of each tracklet.

    Attributes
    ----------
    parts
        ``train``, ``test`` or ``gallery``, by the name of the tracklet.
    train, tested
        Number of people in each.
    """

    parts: dict[str, str]
    train: int
    tested: int

    def counts(self) -> Counter[str]:
        """Return the tracklets of each part."""
        return Counter(self.parts.values())


def split(people: Mapping[str, str], cameras: Mapping[str, str], train_share: float = 0.5, seed: int = 0) -> Split:
    """Divide tracklets by the rule above.

    Parameters
    ----------
    people
        The person of each tracklet whose person is known.
    cameras
        The camera of every tracklet that is to be in a part.
    train_share
        Of the people who were seen by two cameras or more.
    seed
        Of the draw.

    Raises
    ------
    CsipError
        The share is out of range, or fewer than two people were seen by two cameras.
    """
    if not 0 < train_share < 1:
        raise CsipError(f"train_share: expected more than 0 and less than 1, found {train_share}")
    seen: dict[str, set[str]] = {}
    for name, person in people.items():
        if name in cameras:
            seen.setdefault(person, set()).add(cameras[name])
    crossing = sorted(person for person, where in seen.items() if len(where) > 1)
    if len(crossing) < 2:
        raise CsipError(
            f"expected at least 2 people who were seen by 2 cameras, found {len(crossing)}; review the labels, or add videos"
        )
    order = np.random.default_rng(seed).permutation(len(crossing))
    cut = min(max(round(train_share * len(crossing)), 1), len(crossing) - 1)
    tested = {crossing[place] for place in order[cut:].tolist()}
    parts = {
        name: "gallery" if name not in people else "test" if people[name] in tested else "train" for name in cameras
    }
    return Split(parts, len(seen) - len(tested), len(tested))


def write_split(source: Path, root: Path, people: Mapping[str, str], parts: Mapping[str, str]) -> int:
    """Write the table of tracklets with persons and parts as a data set of its own; its frames are links to the source's.

    Parameters
    ----------
    source
        The folder of the data set that was reviewed.
    root
        The folder to make.

    Returns
    -------
    int
        Frames in the table.

    Raises
    ------
    CsipError
        The folder holds something else than an earlier split.
    """
    table = source / TABLE
    rows: list[tuple[str, ...]] = []
    head: list[str] = []
    tops: set[str] = set()
    for _, row in parse_table(table.read_bytes(), table, ("tracklet", "person", "camera", "frame")):
        head = head or [column for column in row if column not in ("person", "part")]
        name = canonical(row["tracklet"])
        if name in parts:
            rows.append((*(row[column] for column in head), people.get(name, ""), parts[name]))
            tops.add(PurePosixPath(row["frame"]).parts[0])
    root.mkdir(parents=True, exist_ok=True)
    for entry in sorted(root.iterdir()):
        # Another data set's folders of frames: its table would be lost.
        if entry.is_dir() and not entry.is_symlink() and not entry.name.startswith("."):
            raise CsipError(
                f"{entry}: expected a link of an earlier split or nothing; name another folder", parameter="out"
            )
    for top in sorted(tops):
        link, target = root / top, (source / top).resolve()
        if not link.exists() and not link.is_symlink():
            link.symlink_to(target)
        elif not (link.is_symlink() and link.resolve() == target):
            raise CsipError(f"{link}: expected a link to {target} or nothing; name another folder", parameter="out")
    write_text(root / TABLE, format_rows([(*head, "person", "part"), *rows]))
    return len(rows)
