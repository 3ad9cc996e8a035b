"""What a journal's entries say, those that were undone aside."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

from csip.errors import CsipError
from csip.review.basis import Basis
from csip.review.beliefs import Answered
from csip.review.grouping import FIRM, Vote
from csip.review.journal import Journal

State = Literal["confirmed", "implied", "proposed", "junk", "mixed"]


class Said:
    """What was said of the tracklets, all entries taken together.

    Attributes
    ----------
    entries
        Those that were not undone, with their numbers from 1.
    votes
        On pairs of tracklets.
    answered
        Answers to questions.
    unsure
        Pairs of tracklets, the lower number first, about which nobody could tell, with how often.
    alone
        Tracklets that were taken out of their groups by hand.
    held
        Those of them whose groups are joined to others by votes alone.
    left_out
        Tracklets that show nobody, or several people.
    titles
        The names that people were given, by tracklet, with the number of the entry.
    unknown
        How many entries are about tracklets that are not there any more.
    """

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self.entries: list[tuple[int, dict[str, Any]]] = []
        self.votes: list[Vote] = []
        self.answered: list[Answered] = []
        self.unsure: dict[tuple[int, int], int] = {}
        self.alone: set[int] = set()
        self.held: set[int] = set()
        self.left_out: dict[int, State] = {}
        self.titles: dict[int, tuple[int, str]] = {}
        self.unknown = 0

    @classmethod
    def of(cls, journal: Journal, basis: Basis) -> Said:
        """Read a journal.

        Raises
        ------
        CsipError
            It holds an entry that cannot be understood.
        """
        said = cls(basis)
        undone = {entry["of"] for entry in journal.entries if entry.get("do") == "undo"}
        for number, entry in enumerate(journal.entries, 1):
            if entry.get("do") == "undo" or number in undone:
                continue
            said.entries.append((number, entry))
            try:
                getattr(said, f"_on_{entry['do']}")(number, entry)
            except (KeyError, AttributeError, TypeError, IndexError) as error:
                if isinstance(error, KeyError) and error.args[0] not in entry:
                    said.unknown += 1
                    continue
                raise CsipError(f"{journal.path}: line {number + 1} cannot be understood ({error!r})") from error
        return said

    def _on_compare(self, number: int, entry: dict[str, Any]) -> None:
        a, b = self._basis.rows[entry["a"]], self._basis.rows[entry["b"]]
        if entry["answer"] == "unsure":
            pair = min(a, b), max(a, b)
            self.unsure[pair] = self.unsure.get(pair, 0) + 1
            return
        same = entry["answer"] == "same"
        self.votes.append(Vote(a, b, 1.0 if same else -1.0, number))
        if "measured" in entry:
            self.answered.append(Answered(entry["kind"], tuple(entry["measured"]), same, entry["agrees"]))

    def _on_mark(self, number: int, entry: dict[str, Any]) -> None:
        for name in entry["names"]:
            row = self._basis.rows[name]
            self.left_out.pop(row, None)
            if entry["as"] != "person":
                self.left_out[row] = entry["as"]

    def _on_move(self, number: int, entry: dict[str, Any]) -> None:
        rows = [self._basis.rows[name] for name in entry["names"]]
        # That they were the same as others no longer holds, nor that they were not the same as whom they are with now.
        moved = set(rows)
        beside = {self._basis.rows[name] for name in entry["beside"] if name in self._basis.rows}
        self.votes = [
            vote
            for vote in self.votes
            if (vote.a in moved) == (vote.b in moved) or (vote.weight < 0 and not {vote.a, vote.b} & beside)
        ]
        self.alone |= moved
        self.held = (self.held | moved) if entry["to"] is None else (self.held - moved)
        for row in moved:
            self.titles.pop(row, None)
        self.votes += [Vote(rows[0], row, FIRM, number) for row in rows[1:]]
        if entry["to"] is not None:
            self.votes.append(Vote(rows[0], self._basis.rows[entry["to"]], FIRM, number))
        self.votes += [Vote(rows[0], self._basis.rows[name], -FIRM, number) for name in entry["from"]]

    def _on_merge(self, number: int, entry: dict[str, Any]) -> None:
        rows = [self._basis.rows[name] for name in entry["names"]]
        self.votes += [Vote(rows[0], row, 2 * FIRM, number) for row in rows[1:]]

    def _on_confirm(self, number: int, entry: dict[str, Any]) -> None:
        rows = [self._basis.rows[name] for name in entry["names"] if name in self._basis.rows]
        rows.sort(key=lambda row: int(self._basis.tree.starts[row]))
        self.votes += [Vote(a, b, FIRM, number) for a, b in pairwise(rows)]

    def _on_rename(self, number: int, entry: dict[str, Any]) -> None:
        for name in entry["names"]:
            if name in self._basis.rows:
                self.titles[self._basis.rows[name]] = number, entry["title"]
