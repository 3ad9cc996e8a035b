"""The people of a review as ``labels.csv``, and what somebody has changed in that file meanwhile.

    tracklet,person,state       state: confirmed (compared), implied (follows from answers), proposed (by distance alone)

A tracklet that shows nobody, or several people, has no row. What was written last is kept in a hidden file beside it: rows that
differ from that were changed by somebody else. Such a change is taken over where the review has not moved the tracklet since;
otherwise it is a conflict, and nothing is written until it is settled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from csip.data.csv_table import format_rows
from csip.data.labels import LABELS, is_proposal, parse_labels
from csip.errors import CsipError
from csip.files import parse_json, write_bytes, write_json
from csip.review.review import Review

NOTE = ".labels.review.json"


@dataclass(frozen=True)
class Conflict:
    """A tracklet that the file and the review give to different people; None is nobody."""

    tracklet: str
    file: str | None
    review: str | None


def written_by_review(path: Path) -> bool:
    """Whether a ``labels.csv`` is what a review wrote last, and nobody has changed it."""
    return LabelsFile(path.parent).untouched()


class LabelsFile:
    """``labels.csv`` of a data set, as a review writes it.

    Parameters
    ----------
    root
        The data set's folder.
    """

    def __init__(self, root: Path) -> None:
        self.path, self._note = root / LABELS, root / NOTE
        self.saved_version = -1
        self._read: tuple[object, dict[str, str | None]] = (None, {})
        self._kept: dict[str, str | None] = {}

    def absorb(self, review: Review) -> int:
        """Take over what somebody has changed in the file; return how many tracklets that are.

        Raises
        ------
        CsipError
            The file cannot be read.
        """
        spoken, taken = self._spoken(review), 0
        wanted: dict[str, list[str]] = {}
        for name, to in self._changes(review).items():
            if to is not None and name not in spoken and self._here(review, name) != to:
                wanted.setdefault(to, []).append(name)
        for title, names in wanted.items():
            self._take(review, title, names)
            taken += len(names)
        return taken

    def conflicts(self, review: Review) -> list[Conflict]:
        """Return the tracklets that were changed both here and in the file."""
        changes = self._changes(review)
        if not changes:
            return []
        titles, people, rows = review.titles(), review.grouping.people, review.basis.rows
        here = {name: titles[people[rows[name]]] if people[rows[name]] >= 0 else None for name in changes}
        return [
            Conflict(name, to, here[name])
            for name, to in changes.items()
            if here[name] != to and self._kept.get(name, "") != to
        ]

    def settle(self, review: Review, name: str, keep: str, key: str | None = None) -> None:
        """Settle a conflict: ``file`` takes over what the file says, ``review`` leaves what the review says.

        Raises
        ------
        CsipError
            There is no such conflict.
        """
        conflict = next((one for one in self.conflicts(review) if one.tracklet == name), None)
        if conflict is None or keep not in ("file", "review"):
            raise CsipError(
                f"expected a conflict to settle and file or review to keep, found {str(name)[:80]} {keep!r}"
            )
        if keep == "review":
            self._kept[name] = conflict.file
        elif conflict.file is None:
            review.mark([name], "junk", key)
        else:
            self._take(review, conflict.file, [name])

    def save(self, review: Review) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        CsipError
            Somebody has changed it so that both cannot be right, or it cannot be read.
        """
        if self._digest() is not None:
            self.absorb(review)
        conflicts = self.conflicts(review)
        if conflicts:
            raise CsipError(
                f"{self.path}: somebody has given {len(conflicts)} tracklets to other people than the review, e.g. "
                f"{conflicts[0].tracklet} to {conflicts[0].file}; settle that on the page, then save again"
            )
        version, titles, states = review.version, review.titles(), review.states()
        people = review.grouping.people.tolist()
        rows = [
            (name, titles[people[row]], states[row]) for row, name in enumerate(review.basis.names) if people[row] >= 0
        ]
        content = format_rows([("tracklet", "person", "state"), *rows]).encode()
        # The note first: a file as either of the two was changed by nobody.
        digests = [digest for digest in (self._digest(), hashlib.sha256(content).hexdigest()) if digest]
        write_json(
            self._note, {"version": version, "digests": digests, "people": {name: title for name, title, _ in rows}}
        )
        write_bytes(self.path, content)
        self._kept.clear()
        self.saved_version = version

    def _here(self, review: Review, name: str) -> str | None:
        person = int(review.grouping.people[review.basis.rows[name]])
        return review.titles()[person] if person >= 0 else None

    def _spoken(self, review: Review) -> set[str]:
        """Return the tracklets that the review is about since the file was written."""
        version = self._told().get("version")
        return review.spoken_of(version) if isinstance(version, int) else set()

    def _take(self, review: Review, title: str, names: list[str]) -> None:
        titles, people, rows = review.titles(), review.grouping.people, review.basis.rows
        there = [n for n, known in enumerate(titles) if known == title]
        marked = [name for name in names if people[rows[name]] < 0]
        if marked:
            review.mark(marked, "person")
            people = review.grouping.people
        groups = {int(people[rows[name]]) for name in names}
        whole = len(groups) == 1 and len(review.grouping.groups[groups.pop()]) == len(names)
        if there:
            review.move(names, review.basis.names[int(review.grouping.groups[there[0]][0])])
        else:
            if not whole:
                review.move(names, None)
            review.rename(names[0], title)

    def untouched(self) -> bool:
        """Whether the file is there as a review wrote it last."""
        digests = self._told().get("digests")
        return isinstance(digests, list) and self._digest() in digests

    def _digest(self) -> str | None:
        return hashlib.sha256(self.path.read_bytes()).hexdigest() if self.path.exists() else None

    def _told(self) -> dict[str, object]:
        if not self._note.exists():
            return {}
        try:
            told = parse_json(self._note.read_bytes())
            return told if isinstance(told, dict) else {}
        except ValueError:
            return {}

    def _written(self) -> dict[str, str]:
        people = self._told().get("people")
        return people if isinstance(people, dict) else {}

    def _changes(self, review: Review) -> dict[str, str | None]:
        """Return the people of the rows that were changed since the file was written; None where a row is gone."""
        if not self.path.exists():
            return {}
        stamp = self.path.stat()
        mark = (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino, self.saved_version)
        if self._read[0] != mark:
            self._read = (mark, self._compare(review))
        return self._read[1]

    def _compare(self, review: Review) -> dict[str, str | None]:
        if self.untouched() or (not self._told() and is_proposal(self.path)):
            return {}
        known = review.basis.rows
        found: dict[str, str] = parse_labels(self.path.read_bytes(), self.path, known)
        written = self._written()
        changed: dict[str, str | None] = {name: person for name, person in found.items() if written.get(name) != person}
        return changed | {name: None for name in written if name not in found and name in known}
