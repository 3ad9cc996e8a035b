"""Groups follow from answers: all of them, in any order, and with what contradicts shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csip.data.folder import Sighting
from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors
from csip.review.basis import Basis
from csip.review.beliefs import Answered, Beliefs
from csip.review.distances import GroupDistances
from csip.review.grouping import FIRM, Grouper, Vote
from csip.review.journal import Journal
from csip.review.neighbours import nearest
from csip.review.review import Review
from csip.review.simulate import Annotator, Truth
from csip.review.split import split
from csip.review.tree import MergeTree

COUNT, PEOPLE = 24, 6


def crowd(seed: int, count: int = COUNT, people: int = PEOPLE, noise: float = 0.7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    who = np.concatenate([np.arange(people), rng.integers(people, size=count - people)])
    features = rng.standard_normal((people, 16))[who] + noise * rng.standard_normal((count, 16))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), who


def grouper_of(features: np.ndarray, apart: np.ndarray, threshold: float = 0.5) -> Grouper:
    from csip.retrieval.clustering import merge_steps

    names = [f"t{row:03d}" for row in range(len(features))]
    steps, threshold = merge_steps(features, names, None, apart, threshold)
    return Grouper(MergeTree.of(steps, threshold), GroupDistances(features), apart, threshold)


pairs = st.tuples(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1)).filter(lambda pair: pair[0] != pair[1])


@settings(max_examples=40)
@given(seed=st.integers(0, 50), asked=st.lists(pairs, max_size=30), together=st.lists(pairs, max_size=8))
def test_true_answers_all_hold(seed: int, asked: list[tuple[int, int]], together: list[tuple[int, int]]) -> None:
    features, who = crowd(seed)
    apart = np.array([pair for pair in together if who[pair[0]] != who[pair[1]]], dtype=np.int64).reshape(-1, 2)
    grouper = grouper_of(features, apart)
    votes = [Vote(a, b, 1.0 if who[a] == who[b] else -1.0, n) for n, (a, b) in enumerate(asked)]
    found = grouper.group(votes)
    # A tree's join that few contradict may stay; what was said of two tracklets themselves holds.
    wrong = {votes[n].source for n in found.unheld}
    assert wrong == set() or len({(min(v.a, v.b), max(v.a, v.b)) for v in votes}) > len(wrong)
    assert all(found.people[a] != found.people[b] for a, b in apart)
    assert sorted(row for rows in found.groups for row in rows.tolist()) == list(range(COUNT))
    again = grouper.group(votes[::-1])
    assert [rows.tolist() for rows in again.groups] == [rows.tolist() for rows in found.groups]


@settings(max_examples=40)
@given(seed=st.integers(0, 20), said=st.lists(st.tuples(pairs, st.booleans()), max_size=40))
def test_whatever_is_said_it_holds_or_is_shown(seed: int, said: list[tuple[tuple[int, int], bool]]) -> None:
    features, _ = crowd(seed)
    grouper = grouper_of(features, np.array([[0, 1], [2, 3]]))
    votes = [Vote(a, b, 1.0 if same else -1.0, n) for n, ((a, b), same) in enumerate(said)]
    found = grouper.group(votes)
    for vote in votes:
        holds = (found.people[vote.a] == found.people[vote.b]) == (vote.weight > 0)
        assert holds != (vote.source in found.unheld)
    assert all(found.people[a] != found.people[b] for a, b in ((0, 1), (2, 3))), "in sight together"


def test_by_hand_counts_more_than_having_been_in_sight_together() -> None:
    features, _ = crowd(0)
    grouper = grouper_of(features, np.array([[0, 1]]))
    assert grouper.group([Vote(0, 1, 1.0, 0)]).unheld == [0]
    assert grouper.group([Vote(0, 1, FIRM, 0)]).unheld == []


def test_one_answer_counts_more_than_a_short_time_in_sight_together() -> None:
    features = np.ones((4, 2), np.float32) / np.sqrt(2, dtype=np.float32)
    steps = np.array([[0, 2, 0, 2], [1, 3, 0, 2], [4, 5, 9, 4]], float)
    tree, nobody, pair = MergeTree.of(steps, 0.5), np.empty((0, 2), np.int64), np.array([[0, 1]])
    grouper = Grouper(tree, GroupDistances(features), nobody, 0.5, pair)
    assert [rows.tolist() for rows in grouper.group([]).groups] == [[0, 2], [1, 3]], "near, but not joined unasked"
    found = grouper.group([Vote(2, 3, 1.0, 0)])
    assert [rows.tolist() for rows in found.groups] == [[0, 1, 2, 3]] and found.unheld == []
    assert grouper.group([Vote(2, 3, -1.0, 0)]).unheld == []
    firm = Grouper(tree, GroupDistances(features), pair, 0.5)
    assert firm.group([Vote(2, 3, 1.0, 0)]).unheld == [0]


def test_mean_distances_of_groups_are_those_of_their_pairs() -> None:
    features, _ = crowd(3)
    distances = GroupDistances(features)
    groups = [np.arange(5), np.arange(5, 11), np.array([20])]
    slots = distances.slots(groups)
    direct = [[(1 - features[a] @ features[b].T).mean() for b in groups] for a in groups]
    assert distances.between(slots, slots) == pytest.approx(np.array(direct), abs=1e-5)
    many = [np.array([a, b]) for a in range(COUNT) for b in range(a)]
    distances.slots(many)
    assert distances.keep(slots)
    slots = distances.slots(groups)
    assert distances.between(slots, slots) == pytest.approx(np.array(direct), abs=1e-5), "after others were forgotten"


def test_the_nearest_tracklets() -> None:
    features, _ = crowd(1)
    found = nearest(features, 4)
    direct = 1 - features @ features.T
    np.fill_diagonal(direct, np.inf)
    assert found.distances == pytest.approx(np.sort(direct, axis=1)[:, :4], abs=1e-5)


# ---- questions --------------------------------------------------------------------------------------------------------


def review_of(
    folder: Path, seed: int, noise: float = 0.6, count: int = 90, people: int = 15
) -> tuple[Review, dict[str, int]]:
    features, who = crowd(seed, count, people, noise)
    names = tuple(f"cam{row % 3}/{row:03d}" for row in range(count))
    flags = np.ones(count, bool)
    cameras = np.arange(count) % 3
    described = Descriptors(features, names, np.zeros(count, np.int64), cameras, flags, flags, "crowd", "m")
    sightings = {name: Sighting(name[:4], (name[:4], ""), 10.0 * row, 10.0 * row + 5) for row, name in enumerate(names)}
    journal = Journal(folder / f"{seed}.jsonl", "crowd")
    return Review(Basis(described, sightings), journal), dict(zip(names, who.tolist(), strict=True))


def agreement_of(review: Review, people: dict[str, int]) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score([people[name] for name in review.basis.names], review.grouping.people))


@pytest.mark.parametrize("seed", [1, 4])
def test_few_answers_reach_the_truth(tmp_path: Path, seed: int) -> None:
    review, people = review_of(tmp_path, seed)
    annotator, names = Annotator(Truth(people)), review.basis.names
    start = agreement_of(review, people)
    asked: list[frozenset[int]] = []
    while agreement_of(review, people) < 0.99 and len(asked) < 90:
        question = review.questions().first[0]
        asked.append(frozenset((question.a, question.b)))
        a, b = names[question.a], names[question.b]
        review.compare(a, b, "same" if annotator.same(a, b) else "different")
    assert start < 0.99
    assert len(asked) < 30, "a third as many as there are tracklets"
    assert len(set(asked)) == len(asked), "nobody is asked the same twice where answers agree"


def test_nobody_is_asked_what_follows(tmp_path: Path) -> None:
    review, people = review_of(tmp_path, 2)
    annotator, names = Annotator(Truth(people)), review.basis.names
    for _ in range(30):
        question = review.questions().first[0]
        groups, votes = review.grouping, review.votes
        known = {frozenset((vote.a, vote.b)) for vote in votes}
        assert frozenset((question.a, question.b)) not in known
        if question.kind == "join":
            assert groups.people[question.a] != groups.people[question.b]
            between = {frozenset((int(groups.people[vote.a]), int(groups.people[vote.b]))) for vote in votes}
            assert frozenset((int(groups.people[question.a]), int(groups.people[question.b]))) not in between
        a, b = names[question.a], names[question.b]
        review.compare(a, b, "same" if annotator.same(a, b) else "different")


def test_a_short_time_in_sight_together_is_asked_about(tmp_path: Path) -> None:
    """A tracker leaves two tracklets of one person, which overlap for 2 of 30 frames."""
    who = np.repeat(np.arange(4), 3)
    features = np.eye(4, 8, dtype=np.float32)[who] + 0.05 * np.random.default_rng(0).standard_normal((12, 8))
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    names, flags = tuple(f"t{row:02d}" for row in range(12)), np.ones(12, bool)
    spans = {0: (0, 29), 1: (28, 60), 2: (59, 90), 3: (0, 40), 6: (500, 540), 4: (505, 530)}
    seen = {
        name: Sighting("c", ("c", ""), *spans.get(row, (1000 * row, 1000 * row + 30))) for row, name in enumerate(names)
    }
    described = Descriptors(features, names, np.zeros(12, np.int64), np.ones(12, np.int64), flags, flags, "crowd", "m")
    basis = Basis(described, seen, 0.5)
    assert basis.brief.tolist() == [[0, 1], [1, 2]] and len(basis.apart) == 3
    review = Review(basis, Journal(tmp_path / "review.jsonl", "crowd"))
    assert review.grouping.groups[0].tolist() == [0, 2], "never joined unasked"
    (question,) = [question for question in review.questions(9).first if question.at_once]
    assert {question.a, question.b} < {0, 1, 2}
    review.compare(names[question.a], names[question.b], "same")
    assert review.grouping.groups[0].tolist() == [0, 1, 2]
    assert review.overlaps() == [(0, 1), (1, 2)], "and it is shown"


def test_an_answer_nobody_could_give_is_asked_later(tmp_path: Path) -> None:
    review, _ = review_of(tmp_path, 3)
    question = review.questions().first[0]
    pair = {question.a, question.b}
    review.compare(review.basis.names[question.a], review.basis.names[question.b], "unsure")
    following = review.questions().first[0]
    assert {following.a, following.b} != pair
    assert review.progress().answers == 1


def test_wrong_answers_are_noticed_by_asking_again() -> None:
    agreeing = [Answered("again", (0.0,) * 5, True, True)] * 60
    torn = [Answered("again", (0.0,) * 5, True, number % 5 > 0) for number in range(60)]
    assert Beliefs.fitted(agreeing).error < Beliefs.fitted([]).error < Beliefs.fitted(torn).error


def test_the_same_answers_give_the_same_state(tmp_path: Path) -> None:
    review, people = review_of(tmp_path, 4)
    annotator, names = Annotator(Truth(people), 0.2), review.basis.names
    states = []
    for _ in range(12):
        states.append([rows.tolist() for rows in review.grouping.groups])
        question = review.questions().first[0]
        a, b = names[question.a], names[question.b]
        review.compare(a, b, "same" if annotator.same(a, b) else "different")
    again, _ = review_of(tmp_path, 4)
    assert [rows.tolist() for rows in again.grouping.groups] == [rows.tolist() for rows in review.grouping.groups]
    first, other = again.questions().first[0], review.questions().first[0]
    assert (first.a, first.b, first.kind) == (other.a, other.b, other.kind)
    for state in states[::-1]:
        review.undo()
        assert [rows.tolist() for rows in review.grouping.groups] == state


# ---- split ------------------------------------------------------------------------------------------------------------


@given(
    seen=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=60),
    seed=st.integers(0, 5),
    share=st.floats(0.1, 0.9),
)
def test_people_are_in_one_part_and_tested_ones_can_be_found(
    seen: list[tuple[int, int]], seed: int, share: float
) -> None:
    people = {f"t{n}": f"p{person}" for n, (person, _) in enumerate(seen) if person}
    cameras = {f"t{n}": f"c{camera}" for n, (_, camera) in enumerate(seen)}
    where: dict[str, set[str]] = {}
    for name, person in people.items():
        where.setdefault(person, set()).add(cameras[name])
    if sum(len(places) > 1 for places in where.values()) < 2:
        with pytest.raises(CsipError, match="at least 2 people who were seen by 2 cameras"):
            split(people, cameras, share, seed)
        return
    found = split(people, cameras, share, seed)
    assert found == split(dict(reversed(people.items())), cameras, share, seed), "whatever the order"
    parts: dict[str, set[str]] = {}
    for name, person in people.items():
        parts.setdefault(person, set()).add(found.parts[name])
    assert all(len(known) == 1 for known in parts.values())
    assert {"train"} in parts.values() and {"test"} in parts.values()
    assert all(len(where[person]) > 1 for person, known in parts.items() if known == {"test"})
    assert all(found.parts[name] == "gallery" for name in cameras if name not in people)
