"""A review: tracklets, what people have said of them, and what follows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from csip.data.folder import Sighting
from csip.data.names import canonical
from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors
from csip.review.basis import Basis
from csip.review.beliefs import Beliefs
from csip.review.distances import GroupDistances
from csip.review.grouping import Grouper, Grouping, Vote
from csip.review.journal import Journal, read_entries
from csip.review.questions import Asker, Questions
from csip.review.said import Said, State

JOURNAL = "review.jsonl"
SAFE = 0.01  # share of the pairs within groups that may be expected to be wrong

Answer = Literal["same", "different", "unsure"]
Mark = Literal["person", "junk", "mixed"]
_LONGEST = 200  # characters of a person's name


@dataclass(frozen=True)
class Progress:
    """How far a review is.

    Attributes
    ----------
    answers
        Entries that count: not undone.
    confirmed, implied, proposed, left_out
        Tracklets by state.
    people
        Groups.
    contradictions
        Answers that do not hold, as others contradict them.
    to_go
        Questions that are expected to be left until the labels are safe.
    wrong
        Share of the pairs within groups that is expected to be wrong.
    """

    answers: int
    confirmed: int
    implied: int
    proposed: int
    left_out: int
    people: int
    contradictions: int
    to_go: int
    wrong: float


class Review:
    """What has been said of a data set's tracklets. Safe to use from several threads.

    Parameters
    ----------
    basis
        What the review starts from.
    journal
        What has been said.

    Raises
    ------
    CsipError
        The journal holds an entry that cannot be read.
    """

    def __init__(self, basis: Basis, journal: Journal) -> None:
        self.basis, self.journal = basis, journal
        self._grouper = Grouper(basis.tree, GroupDistances(basis.features), basis.apart, basis.threshold, basis.brief)
        self._asker = Asker(self._grouper, basis.neighbours)
        self._lock = threading.RLock()
        self._asked: Questions | None = None
        self._keys = {entry["key"]: number for number, entry in enumerate(journal.entries, 1) if "key" in entry}
        self.work_out()

    # ---- what follows -------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Number of entries in the journal."""
        return len(self.journal.entries)

    @property
    def grouping(self) -> Grouping:
        """Who is with whom."""
        return self._grouping

    @property
    def votes(self) -> tuple[Vote, ...]:
        """Return what the entries say of pairs of tracklets."""
        return tuple(self._said.votes)

    @property
    def unknown(self) -> int:
        """Number of entries about tracklets that are not there any more."""
        return self._said.unknown

    def questions(self, count: int = 1) -> Questions:
        """Return the questions that matter most."""
        with self._lock:
            if self._asked is None or len(self._asked.first) < min(count, self._asked.count):
                self._asked = self._asker.ask(
                    self._grouping, self._said.votes, self._said.unsure, self._beliefs, max(count, 3)
                )
            return self._asked

    def states(self) -> list[State]:
        """Return what is known of each tracklet."""
        tree, grouping = self.basis.tree, self._grouping
        states = np.full(tree.count, "proposed", dtype=object)
        for node, weight in grouping.node_votes.items():
            if weight > 0 and node not in grouping.open:
                states[tree.below(node)] = "implied"
        for link in grouping.joined:
            if link.weight > 0:
                for piece in link.pieces:
                    rows = tree.below(piece)
                    states[rows[grouping.pieces[rows] == piece]] = "implied"
        for vote in self._said.votes:
            if vote.weight > 0 and grouping.people[vote.a] == grouping.people[vote.b]:
                states[[vote.a, vote.b]] = "confirmed"
        for row in self._said.alone - self._said.left_out.keys():
            states[row] = "confirmed"
        for row, mark in self._said.left_out.items():
            states[row] = mark
        return list(states)

    def title(self, person: int) -> str:
        """Return the name of a group: as given, else of the number of its first tracklet."""
        rows = self._grouping.groups[person].tolist()
        given = [self._said.titles[row] for row in rows if row in self._said.titles]
        if given:
            # What most are called; of two as frequent, what was said last.
            return max(given, key=lambda said: (sum(title == said[1] for _, title in given), said[0]))[1]
        first = next((row for row in rows if row not in self._said.alone), rows[0])
        return f"person-{first + 1:0{max(len(str(self.basis.tree.count)), 3)}d}"

    def titles(self) -> list[str]:
        """Return the names of all groups; two people of one name get a number."""
        found: dict[str, int] = {}
        titles = []
        for person in range(len(self._grouping.groups)):
            title = self.title(person)
            found[title] = found.get(title, 0) + 1
            titles.append(title if found[title] == 1 else f"{title} ({found[title]})")
        return titles

    def overlaps(self) -> list[tuple[int, int]]:
        """Return the pairs of tracklets of one person that one camera saw at the same time."""
        people, together = self._grouping.people, np.concatenate([self.basis.apart, self.basis.brief])
        same = (people[together[:, 0]] == people[together[:, 1]]) & (people[together[:, 0]] >= 0)
        return [(a, b) for a, b in together[same].tolist()]

    def progress(self) -> Progress:
        """Return how far the review is."""
        with self._lock:
            states, asked = self.states(), self.questions()
            pairs = sum(len(rows) * (len(rows) - 1) // 2 for rows in self._grouping.groups)
            left_out = states.count("junk") + states.count("mixed")
            counts = (states.count("confirmed"), states.count("implied"), states.count("proposed"), left_out)
            wrong = float(min(asked.stakes.sum() / max(pairs, 1), 1))
            return Progress(
                len(self._said.entries), *counts, len(self._grouping.groups), len(self._grouping.unheld),
                asked.until(SAFE, pairs), wrong,
            )  # fmt: skip

    def nearest_to(self, feature: np.ndarray, count: int, kept: np.ndarray) -> list[tuple[int, float]]:
        """Return the tracklets nearest to a descriptor, with their distances.

        Parameters
        ----------
        feature
            A row of ``basis.features``, or what `Basis.feature_of` returns.
        kept
            (N,) bool, the tracklets that count.
        """
        distances = 1 - self.basis.features @ feature
        rows = np.flatnonzero(kept)
        order = rows[np.argsort(distances[rows], kind="stable")[:count]]
        return [(int(other), float(max(distances[other], 0))) for other in order]

    def spoken_of(self, since: int) -> set[str]:
        """Return the tracklets that entries after a version are about, those that were undone aside."""
        found: set[str] = set()
        for number, entry in self._said.entries:
            if number > since:
                found.update(entry.get("names", ()), (entry[side] for side in ("a", "b") if side in entry))
        return found

    # ---- what is said -------------------------------------------------------------------------------------------

    def row(self, name: object) -> int:
        """Return the number of a tracklet.

        Raises
        ------
        CsipError
            There is no such tracklet.
        """
        row = self.basis.rows.get(name) if isinstance(name, str) else None
        if row is None:
            raise CsipError(f"tracklet {str(name)[:80]!r} is not in this data set")
        return row

    def compare(self, a: str, b: str, answer: Answer, key: str | None = None) -> int:
        """Say whether two tracklets are the same person.

        Parameters
        ----------
        key
            Of the caller; what comes again with the same key counts once.

        Returns
        -------
        int
            The version after it.

        Raises
        ------
        CsipError
            There is no such tracklet, or both are the same.
        """
        if answer not in ("same", "different", "unsure"):
            raise CsipError(f"answer: expected same, different or unsure, found {str(answer)[:40]!r}")
        first, second = self.row(a), self.row(b)
        if first == second:
            raise CsipError(f"expected two tracklets, found {a} twice")
        with self._lock:
            entry: dict[str, Any] = {"do": "compare", "a": a, "b": b, "answer": answer}
            for question in self.questions().first:
                if {question.a, question.b} == {first, second}:
                    measured = [round(value, 4) for value in question.measured]
                    entry |= {"kind": question.kind, "measured": measured}
                    entry["agrees"] = ((question.said or question.same - 0.5) > 0) == (answer == "same")
            return self._add(entry, key)

    def mark(self, names: Sequence[str], mark: Mark, key: str | None = None) -> int:
        """Say that tracklets show nobody that is asked for, several people, or a person after all."""
        if mark not in ("person", "junk", "mixed"):
            raise CsipError(f"as: expected person, junk or mixed, found {str(mark)[:40]!r}")
        return self._add({"do": "mark", "names": self._checked(names), "as": mark}, key)

    def move(self, names: Sequence[str], to: str | None, key: str | None = None) -> int:
        """Take tracklets out of their groups, and into that of another tracklet, or else into one of their own."""
        checked = self._checked(names)
        with self._lock:
            people = self._grouping.people
            rows = [self.row(name) for name in checked]
            rest = []
            for person in sorted({int(people[row]) for row in rows if people[row] >= 0}):
                left = np.setdiff1d(self._grouping.groups[person], rows)
                if len(left) and (to is None or people[self.row(to)] != person):
                    pieces = self._grouping.pieces[left]
                    rest += [self.basis.names[self._central(left[pieces == piece])] for piece in np.unique(pieces)]
            beside: list[str] = []
            if to is not None:
                person = int(people[self.row(to)])
                beside = [
                    self.basis.names[row] for row in (self._grouping.groups[person].tolist() if person >= 0 else [])
                ]
            to = None if to is None else self.basis.names[self.row(to)]
            return self._add({"do": "move", "names": checked, "to": to, "from": rest, "beside": beside}, key)

    def merge(self, names: Sequence[str], key: str | None = None) -> int:
        """Say that the groups of some tracklets are one person."""
        checked = self._checked(names)
        if len(checked) < 2:
            raise CsipError("expected tracklets of two people or more to merge")
        return self._add({"do": "merge", "names": checked}, key)

    def confirm(self, name: str, key: str | None = None) -> int:
        """Say that the group of a tracklet is right as it is."""
        with self._lock:
            person = int(self._grouping.people[self.row(name)])
            if person < 0:
                raise CsipError(f"tracklet {name} is of no person")
            rows = self._grouping.groups[person]
            return self._add({"do": "confirm", "names": [self.basis.names[row] for row in rows.tolist()]}, key)

    def rename(self, name: str, title: str, key: str | None = None) -> int:
        """Name the person of a tracklet."""
        title = canonical(str(title)).strip()
        if not title or len(title) > _LONGEST or not title.isprintable():
            raise CsipError(f"title: expected 1 to {_LONGEST} printable characters, found {title[:40]!r}")
        with self._lock:
            person = int(self._grouping.people[self.row(name)])
            if person < 0:
                raise CsipError(f"tracklet {name} is of no person")
            names = [self.basis.names[row] for row in self._grouping.groups[person].tolist()]
            return self._add({"do": "rename", "names": names, "title": title}, key)

    def undo(self, key: str | None = None) -> int:
        """Take back the last entry that was not taken back yet.

        Raises
        ------
        CsipError
            There is none.
        """
        with self._lock:
            if not self._said.entries:
                raise CsipError("there is nothing to undo")
            return self._add({"do": "undo", "of": self._said.entries[-1][0]}, key)

    # ---- inside -------------------------------------------------------------------------------------------------

    def _checked(self, names: Sequence[str]) -> list[str]:
        if not isinstance(names, Sequence) or isinstance(names, str) or not names:
            raise CsipError("names: expected a list of tracklets")
        return [self.basis.names[row] for row in dict.fromkeys(map(self.row, names))]

    def _central(self, rows: np.ndarray) -> int:
        near = self.basis.features[rows] @ self.basis.features[rows].mean(axis=0)
        return int(rows[near.argmax()])

    def _add(self, entry: dict[str, Any], key: str | None) -> int:
        with self._lock:
            if key is not None and key in self._keys:
                return self.version
            if key is not None:
                entry["key"] = key
            self.tell(entry)
            self.work_out()
            return self.version

    def tell(self, entry: dict[str, Any]) -> None:
        """Append an entry; what follows is worked out by `work_out`, once after many."""
        with self._lock:
            number = self.journal.add(entry)
            if "key" in entry:
                self._keys[entry["key"]] = number

    def work_out(self) -> None:
        """Work out everything from the journal."""
        self._said = Said.of(self.journal, self.basis)
        self._beliefs = Beliefs.fitted(self._said.answered)
        self._grouping = self._grouper.group(
            self._said.votes,
            frozenset(self._said.alone),
            frozenset(self._said.left_out),
            frozenset(self._said.held),
            self._asker.credible(self._beliefs),
        )
        self._asked = None


def left_out(root: Path, dataset: str) -> dict[str, str]:
    """Return the tracklets that a data set's journal says show nobody or several people, and which of the two.

    Raises
    ------
    CsipError
        The journal is damaged or of another data set.
    """
    entries = read_entries(root / JOURNAL, dataset)
    undone = {entry["of"] for entry in entries if entry.get("do") == "undo"}
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        if entry.get("do") == "mark" and number not in undone:
            found.update(dict.fromkeys(entry["names"], entry["as"]))
    return {name: mark for name, mark in found.items() if mark != "person"}


def open_review(
    root: Path,
    descriptors: Descriptors,
    sightings: Mapping[str, Sighting],
    threshold: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Review:
    """Open the review of a data set: its descriptors, and ``review.jsonl`` in its folder.

    Raises
    ------
    CsipError
        The journal is damaged or of another data set, or there are too many tracklets.
    """
    review = Review(Basis(descriptors, sightings, threshold), Journal(root / JOURNAL, descriptors.dataset, say))
    if review.unknown:
        say(
            f"{root / JOURNAL}: {review.unknown} entries are about tracklets that are not there any more, and do not count"
        )
    return review
