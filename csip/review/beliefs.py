"""How likely two sides are the same person, as learned from the answers so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

# Weights before there are answers, as measured on synthetic crowds of three levels of noise: of the mean distance below the
# threshold, of the margin to the next group, and of that to the nearest tracklet of another group, all in widths; of the
# logarithms of the smaller and the larger side; the offset. Below, how firmly they are held.
_SPLIT = (0.3, 0.4, 1.1, 0.2, 0.1, 0.2)
_JOIN = (0.6, 1.0, 0.6, -1.6, -1.7, 3.6)
_PRIOR = np.array([8.0, 8.0, 8.0, 4.0, 4.0, 1.0])
_SLIPS = (0.6, 60.0)  # wrong answers among so many, before any was asked again
_SURE = 5.8  # log odds, one in three hundred is otherwise, beyond which they grow like a logarithm: measures mislead
_ALIKE = 0.005  # least probability that a join within a group unites two people, who may look alike

Kind = Literal["join", "split", "again", "contradiction"]


@dataclass(frozen=True, eq=False)
class Belief:
    """How likely two sides are the same person: a logistic regression on what is measured of them, see `csip.review.measures`.

    Attributes
    ----------
    weights
        (6,) of the measures and the offset.
    alike
        Least probability that they are two people, whatever is measured.
    """

    weights: np.ndarray
    alike: float

    def log_odds(self, measured: np.ndarray) -> np.ndarray:
        """Return the log odds of "same", (n,), of (n, 5) measures."""
        plain = measured @ self.weights[:-1] + self.weights[-1]
        beyond = np.maximum(np.abs(plain) - _SURE, 0)
        found = np.sign(plain) * (np.minimum(np.abs(plain), _SURE) + np.log1p(beyond))
        return np.asarray(np.minimum(found, np.log((1 - self.alike) / self.alike)))

    @staticmethod
    def fitted(
        start: Sequence[float], answers: Sequence[tuple[Sequence[float], bool]], alike: float, error: float
    ) -> Belief:
        """Fit to answers, from where things stand before there are any; a few of them move little, and wrong ones less.

        Parameters
        ----------
        start
            The weights without answers.
        answers
            The measures, and whether they were the same.
        alike
            As the attribute.
        error
            Share of the answers that are wrong.
        """
        weights = np.array(start, dtype=np.float64)
        if not answers:
            return Belief(weights, alike)
        x = np.array([[*measured, 1.0] for measured, _ in answers])
        y = np.array([same for _, same in answers], dtype=np.float64)
        begin = weights.copy()
        for _ in range(25):  # Fisher's scoring
            p = sigmoid(np.clip(x @ weights, -30, 30))
            said = error + (1 - 2 * error) * p  # how likely the answer is "same"
            slope = (1 - 2 * error) * p * (1 - p)
            spread = said * (1 - said)
            gradient = x.T @ ((said - y) * slope / spread) + _PRIOR * (weights - begin)
            step = np.linalg.solve((x * (slope**2 / spread)[:, None]).T @ x + np.diag(_PRIOR), gradient)
            weights = weights - np.clip(step, -1, 1)
            if np.abs(step).max() < 1e-6:
                break
        return Belief(weights, alike)


@dataclass(frozen=True, eq=False)
class Beliefs:
    """What is believed of joins within groups, of groups that are not joined, and of answers.

    Attributes
    ----------
    split, join
        How likely the two sides are the same person.
    error
        Share of the answers that are wrong.
    """

    split: Belief
    join: Belief
    error: float

    @property
    def answer(self) -> float:
        """Log odds that one answer adds."""
        return float(np.log((1 - self.error) / self.error))

    @staticmethod
    def fitted(answers: Sequence[Answered]) -> Beliefs:
        """Fit all of it to the answers; `error` is the share that was found to be otherwise when asked again."""
        parts = {kind: [(one.measured, one.same) for one in answers if one.kind == kind] for kind in ("split", "join")}
        again = [one.agrees for one in answers if one.kind == "again"]
        error = (_SLIPS[0] + again.count(False)) / (_SLIPS[1] + len(answers))  # doubtful ones are asked again, not any
        error = min(error, 0.2)
        split, join = (
            Belief.fitted(start, parts[kind], _ALIKE, error) for kind, start in (("split", _SPLIT), ("join", _JOIN))
        )
        return Beliefs(split, join, error)


@dataclass(frozen=True)
class Answered:
    """A question and its answer, for `Beliefs.fitted`.

    Attributes
    ----------
    kind, measured
        Of the question.
    same
        The answer.
    agrees
        Whether the answer is what was believed.
    """

    kind: Kind
    measured: tuple[float, ...]
    same: bool
    agrees: bool


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Return probabilities."""
    return 1 / (1 + np.exp(-np.asarray(log_odds, dtype=np.float64)))
