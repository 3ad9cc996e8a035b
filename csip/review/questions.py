"""The question whose answer is likely to change most: how likely the proposal is wrong there, times the pairs that hang on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from csip.review.beliefs import Beliefs, Kind, sigmoid
from csip.review.candidates import LEAST, Candidate, Candidates, width
from csip.review.grouping import Grouper, Grouping, Vote
from csip.review.measures import Measures
from csip.review.neighbours import Neighbours

_TIMES = 2  # that one pair of tracklets is asked about
_CENTRAL = 6  # tracklets of a side from which the one shown is chosen
_REJOINED = 0.7  # how often what was split off joins the next group, and rightly
_DOUBT = 0.6  # what is left of a question's stake when nobody could tell


@dataclass(frozen=True)
class Question:
    """Two tracklets to compare.

    Attributes
    ----------
    a, b
        The tracklets shown.
    kind
        Whether to join two groups, to split one, to answer again, or to settle a contradiction.
    stake
        Pairs of tracklets that are expected to be put right.
    pairs
        Pairs of tracklets that hang on the answer.
    same
        How likely it is that they are the same person.
    distance
        Mean distance of the two sides.
    measured
        What the probability was computed from.
    said
        What earlier answers say of the two sides, in answers: "same" above 0.
    at_once
        Whether two of the sides were in sight together for a short time.
    """

    a: int
    b: int
    kind: Kind
    stake: float
    pairs: int
    same: float
    distance: float
    measured: tuple[float, ...]
    said: float = 0.0
    at_once: bool = False


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions that are open, by their stakes.

    Attributes
    ----------
    first
        The ones with most at stake, in order.
    count
        How many there are.
    stakes
        (count,) of all in order: pairs of tracklets that are expected to be put right by each.
    """

    first: tuple[Question, ...]
    count: int
    stakes: np.ndarray

    def until(self, share: float, pairs: int) -> int:
        """Return how many of them to answer until at most a share of so many pairs is expected to be wrong."""
        left = self.stakes.sum() - np.cumsum(np.concatenate([[0.0], self.stakes]))
        return int(np.argmax(left <= share * pairs + 1e-9))


class Asker:
    """Chooses questions.

    Parameters
    ----------
    grouper
        Who makes the groups.
    neighbours
        The nearest tracklets of each, see `nearest`.
    """

    def __init__(self, grouper: Grouper, neighbours: Neighbours) -> None:
        self._grouper, self._width = grouper, width(grouper)
        self._candidates, self._measures = Candidates(grouper), Measures(grouper, neighbours)

    def credible(self, beliefs: Beliefs) -> float:
        """Return how much more credible "same" becomes, in answers, where the mean distance falls by one."""
        return float(beliefs.split.weights[:2].sum() / self._width / beliefs.answer)

    def ask(
        self,
        grouping: Grouping,
        votes: Sequence[Vote],
        unsure: Mapping[tuple[int, int], int],
        beliefs: Beliefs,
        count: int = 1,
    ) -> Questions:
        """Return the open questions.

        Parameters
        ----------
        grouping
            What follows from the answers.
        votes
            The answers.
        unsure
            Pairs of tracklets, the lower number first, about which nobody could tell, with how often.
        beliefs
            How likely groups are the same person.
        count
            How many of the first to return.
        """
        asked: dict[tuple[int, int], int] = dict(unsure)
        for vote in votes:
            pair = min(vote.a, vote.b), max(vote.a, vote.b)
            asked[pair] = asked.get(pair, 0) + 1
        candidates = self._candidates.of(grouping, votes)
        if not candidates:
            return Questions((), 0, np.empty(0))
        measured, after = self._measures.of(candidates, grouping)
        joined = np.array([one.joined for one in candidates])
        weights = np.array([one.weight for one in candidates])
        split, join = beliefs.split.log_odds(measured), beliefs.join.log_odds(measured)
        # An answer is doubted by whichever belief it goes against; that of joins within groups ends at the threshold.
        again, near = weights != 0, measured[:, 0] >= 0
        log_odds = np.where(joined, split, join)
        log_odds[again & joined] = np.minimum(split, join)[again & joined]
        log_odds[again & ~joined & near] = np.maximum(split, join)[again & ~joined & near]
        same = sigmoid(log_odds + beliefs.answer * weights)
        pairs = np.array([len(one.here) * len(one.there) for one in candidates], dtype=np.float64)
        # What leaves a group joins the next one: as many pairs again are put right.
        small = np.array([min(len(one.here), len(one.there)) for one in candidates])
        stakes = np.where(joined, (1 - same) * (pairs + _REJOINED * small * after), same * pairs)
        torn = np.array([one.kind == "contradiction" for one in candidates])
        stakes[torn] = (np.minimum(same, 1 - same) * pairs)[torn]
        self._doubt(candidates, stakes, unsure)
        order = np.argsort(
            -(stakes + torn), kind="stable"
        )  # a contradiction is to be settled, even where little hangs on it
        order = order[(stakes[order] > LEAST) | torn[order]]
        first: list[Question] = []
        for place in order.tolist():
            if len(first) == count:
                break
            one = candidates[place]
            a, b, before = self._shown(one.here, one.there, asked)
            if before >= _TIMES:
                stakes[place] = 0  # to be told in another way
                continue
            numbers = float(stakes[place]), int(pairs[place]), float(same[place]), one.distance
            first.append(Question(a, b, one.kind, *numbers, tuple(measured[place].tolist()), one.weight, one.at_once))
        open_stakes = stakes[order[stakes[order] > 0]]
        return Questions(tuple(first), len(open_stakes), open_stakes)

    def _doubt(
        self, candidates: Sequence[Candidate], stakes: np.ndarray, unsure: Mapping[tuple[int, int], int]
    ) -> None:
        """Lower the stakes of questions that nobody could answer."""
        for (a, b), times in unsure.items():
            for place, one in enumerate(candidates):
                if (a in one.here and b in one.there) or (b in one.here and a in one.there):
                    stakes[place] *= (1 - _DOUBT) ** times

    def _shown(self, here: np.ndarray, there: np.ndarray, asked: Mapping[tuple[int, int], int]) -> tuple[int, int, int]:
        """Return the most central tracklets of two sides that were compared least, and how often they were."""
        features = self._grouper.distances.features
        central = []
        for rows in (here, there):
            near = features[rows] @ features[rows].mean(axis=0)
            central.append(rows[np.argsort(-near, kind="stable")[:_CENTRAL]].tolist())
        ranked = sorted(
            (asked.get((min(a, b), max(a, b)), 0), i + j, i, a, b)
            for i, a in enumerate(central[0])
            for j, b in enumerate(central[1])
        )
        times, _, _, a, b = ranked[0]
        return a, b, times
