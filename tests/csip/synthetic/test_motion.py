"""The motion world: twins of a stratum differ in their trait alone, and only the cues of that trait tell them apart."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from csip.errors import CsipError
from csip.synthetic.body import H36M_NAMES, walk
from csip.synthetic.camera import make_camera
from csip.synthetic.ceilings import CUES, Ceiling, TwinWalks, measure_ceilings, tell_apart
from csip.synthetic.motion import STRATA, draw_outing, make_twin, stratum
from csip.synthetic.walks import frame_times, walk_generator
from csip.synthetic.world import SyntheticSpec, identity, load_strata, load_truth, lookalikes, render_mars, strata
from pose_cache.joints import H36M17
from pose_cache.store import Provenance, TrackletSkeletons, write_store

SPEC = SyntheticSpec(
    seed=3, train_ids=8, test_ids=16, cameras=3, tracklets_per_camera=2, frames=16, height=32, width=16,
    twin_share=1.0, distractors=1, junk=1, world="motion",
)  # fmt: skip
FPS = 12.0
PAIRS = 24  # of each stratum
LIMIT = 1.96 * np.sqrt(0.25 / (2 * PAIRS))  # half of the binomial 95 % interval about chance, were a person one trial

Tell = Callable[[str, int, str], Ceiling]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("motion") / "world"
    render_mars(root, SPEC)
    return root


@pytest.fixture(scope="module")
def told() -> Tell:
    """Measure twins whose joints alone are made, which is much faster than to render them."""
    people, joints, who, where = 2 * PAIRS * len(STRATA), [], [], []
    for number in range(people):
        person = make_twin(2_000_011, number, number)
        for camera in (1, 2, 3):
            seen_by = make_camera(11, camera)
            for walk_number in (0, 1):
                rng = walk_generator(2_000_011, number, camera, walk_number)
                outing = draw_outing(person, seen_by, rng, frame_times(64, FPS))
                pose = walk(person.body, outing.gait, outing.phase).stack(H36M_NAMES)
                joints.append(seen_by.to_camera(outing.to_world(pose)))
                who.append(number)
                where.append(camera)
    pairs = {name: np.array([[n, n + 1] for n in range(0, people, 2) if stratum(n) == name]) for name in STRATA}
    rows = tell_apart(TwinWalks(np.array(joints), np.array(who), np.array(where), pairs, FPS))
    found = {(row.cue, row.frames, row.stratum): row for row in rows}
    assert len(found) == 4 * len(CUES) * len(STRATA)
    return lambda cue, frames, name: found[cue, frames, name]


def test_twins_differ_in_the_trait_of_their_stratum_alone() -> None:
    of_trait = {
        "posture": {"elbow", "arm_spread", "lean", "hunch", "head_pitch", "step_width", "toe_out", "hip_flexion",
                    "knee_flexion", "arm_flexion"},
        "swings": {"stride", "knee_lift", "arm_swing", "arm_asymmetry", "elbow_swing", "sway", "pelvis_turn",
                   "pelvis_drop", "shoulder_turn", "leg_asymmetry"},
        "cadence": {"cadence", "arm_lag", "step_lag"},
    }  # fmt: skip
    keys = {f"{name}_key" for name in STRATA}
    for number in range(0, 40, 2):
        one, two = make_twin(1, number, 1), make_twin(1, number + 1, 2)
        name = stratum(number)
        assert name == stratum(number + 1)
        assert one.clothing == two.clothing and one.clothing_key == two.clothing_key
        assert {key for key in keys if getattr(one, key) != getattr(two, key)} == {f"{name}_key"}
        assert (one.body != two.body) == (name == "body")
        gait, other = asdict(one.gait), asdict(two.gait)
        differing = {part for part in gait if gait[part] != other[part]}
        assert differing == of_trait.get(name, set())
        stranger = make_twin(1, number + 2, 3)
        assert stranger.body != one.body and stranger.gait != one.gait and stranger.clothing != one.clothing
        assert make_twin(1, number, 1) == one != make_twin(2, number, 1)


def test_twins_are_half_of_a_range_apart() -> None:
    people = [make_twin(0, number, number) for number in range(160)]
    tempi = np.array([p.gait.cadence for p in people if stratum(p.key) == "cadence"]).reshape(-1, 2)
    np.testing.assert_allclose(np.abs(np.diff(tempi)), 0.375)
    everyone = np.array([p.gait.cadence for p in people])
    assert 1.5 <= everyone.min() < 1.6 and 2.15 < everyone.max() <= 2.25


@pytest.mark.slow
def test_each_trait_tells_its_twins_apart(told: Tell) -> None:
    for cue, frames, name, least in (
        ("proportions", 8, "body", 0.99),
        ("mean pose", 16, "posture", 0.95),
        ("spread", 16, "swings", 0.95),
        ("spectrum", 32, "cadence", 0.95),
        ("spectrum", 64, "cadence", 0.95),
        ("cadence", 32, "cadence", 0.95),
        ("one frame", 8, "posture", 0.75),
    ):
        row = told(cue, frames, name)
        assert row.own_twin >= least and row.low > 0.5 + LIMIT, (cue, frames, name)
        assert row.low <= row.own_twin <= row.high


@pytest.mark.parametrize("frames", [32, 64])
def test_no_trait_is_told_by_what_belongs_to_another(frames: int, told: Tell) -> None:
    cues = {"proportions": "body", "mean pose": "posture", "spread": "swings", "cadence": "cadence"}
    for cue, trait in cues.items():
        for name in set(STRATA) - {trait}:
            assert abs(told(cue, frames, name).own_twin - 0.5) < LIMIT, (cue, name)
    assert abs(told("spectrum", frames, "body").own_twin - 0.5) < LIMIT
    assert abs(told("mean joints", frames, "cadence").own_twin - 0.5) < LIMIT
    assert told("mean joints", frames, "swings").own_twin < 0.75, "positions draw in as swings grow, but only a little"


def test_cadence_needs_time_and_one_frame_does_not_know_it(told: Tell) -> None:
    assert told("spectrum", 8, "cadence").own_twin < 0.8 < told("spectrum", 32, "cadence").own_twin
    assert abs(told("one frame", 8, "cadence").own_twin - 0.5) < LIMIT


def test_walks_turn_alike_at_any_tempo() -> None:
    """The views that a walk shows must not tell how fast it was."""
    camera, turns = make_camera(0, 1), []
    for fast in (False, True):
        person = make_twin(0, 6, 7)
        person = replace(person, gait=replace(person.gait, cadence=2.2 if fast else 1.5))
        outing = draw_outing(person, camera, np.random.default_rng(4), frame_times(64, FPS))
        turns.append(outing.heading)
        assert np.ptp(np.diff(outing.heading)) < 1e-9 and 1.0 < np.ptp(outing.heading) < 2.5
    np.testing.assert_array_equal(*turns)


@pytest.mark.slow
def test_the_folder_says_which_world_it_is(rendered: Path) -> None:
    found = load_strata(rendered)
    assert found == strata(SPEC)
    assert (found.part, found.seeds, found.fps) == ("validation", {"train": 3, "test": 1_000_003}, 12.0)
    assert found.train == {name: [[2 * i + 1, 2 * i + 2]] for i, name in enumerate(STRATA)}
    assert found.test["cadence"] == [[15, 16], [23, 24]]
    pairs = [pair for split in (found.train, found.test) for group in split.values() for pair in group]
    assert sorted(pairs) == lookalikes(SPEC) == json.loads((rendered / "lookalikes.json").read_text())
    people = json.loads((rendered / "identities.json").read_text())["identities"]
    for one, two in found.test["swings"]:
        assert people[str(one)]["swings_key"] != people[str(two)]["swings_key"]
        assert people[str(one)]["posture_key"] == people[str(two)]["posture_key"]
    assert len(list(load_truth(rendered))) == 24 * 6 + 2


def test_worlds_are_disjoint_and_people_stay_who_they_are() -> None:
    test = replace(SPEC, part="test")
    more = replace(SPEC, train_ids=16)
    for number in range(1, 17):
        assert identity(SPEC, 8 + number).clothing == identity(more, 16 + number).clothing
        assert identity(SPEC, 8 + number).gait == identity(more, 16 + number).gait
        assert identity(SPEC, 8 + number).clothing != identity(test, 8 + number).clothing
    for pid in range(1, 9):
        assert identity(SPEC, pid) == identity(test, pid)
        assert identity(SPEC, pid).clothing not in [identity(s, 8 + pid).clothing for s in (SPEC, test)]


def test_a_rendered_world_measures_itself_by_true_and_by_estimated_joints(rendered: Path, tmp_path: Path) -> None:
    found = measure_ceilings(rendered)
    assert (found.part, found.people, found.tracklets, found.missing) == ("validation", 16, 96, 0)
    assert {row.frames for row in found.rows} == {8, 16}
    assert found.find("proportions", 16, "body").own_twin == 1

    def lengths(joints: np.ndarray) -> np.ndarray:
        assert not joints[:, :, 0].any()  # pelvis
        parents, children = np.array(H36M17.bones).T
        return np.linalg.norm(joints[:, :, children] - joints[:, :, parents], axis=-1).mean(axis=1)

    by_encoder = measure_ceilings(rendered, encoder=lengths)
    assert by_encoder.rows[: len(found.rows)] == found.rows
    assert by_encoder.find("encoder", 16, "body").own_twin == 1
    assert by_encoder.find("encoder", 16, "cadence").own_twin == pytest.approx(0.5, abs=0.1)

    truths = [t for t in load_truth(rendered) if t.name.startswith("test/")]
    store, provenance = tmp_path / "skeletons.h5", Provenance("truth", "h36m17", "metres")

    def write(valid: Callable[[int], np.ndarray], skeletons: list = truths) -> None:
        write_store(store, [
            TrackletSkeletons(
                name=t.name, frames=t.frames, joints=np.where(valid(i)[:, None, None], t.joints3d, 0).astype(np.float32),
                keypoints2d=np.zeros((16, 17, 3), np.float32), valid=valid(i),
            )
            for i, t in enumerate(skeletons)
        ], provenance)  # fmt: skip

    write(lambda i: np.ones(16, bool))
    assert measure_ceilings(rendered, store) == found
    write(
        lambda i: np.arange(16) % 5 != 2 if i < len(truths) - 1 else np.zeros(16, bool)
    )  # gaps, and a tracklet without any pose
    gaps = measure_ceilings(rendered, store)
    assert gaps.missing == 1 and gaps.find("proportions", 16, "body").own_twin > 0.95
    write(lambda i: np.zeros(16, bool))
    with pytest.raises(CsipError, match=r"skeletons\.h5: expected skeletons of the test"):
        measure_ceilings(rendered, store)


def test_wrong_worlds_are_refused(walkers: Path, tmp_path: Path) -> None:
    for change, words in (
        ({"train_ids": 12}, "train_ids: expected a multiple of 8"),
        ({"cameras": 2}, "cameras: expected 3"),
        ({"twin_share": 0.5}, "twin_share"),
        ({"seed": 1_000_000}, "seed: expected less than 1000000"),
        ({"world": "walkers", "part": "test"}, "motion world"),
    ):
        with pytest.raises(CsipError, match=words):
            replace(SPEC, **change)
    with pytest.raises(CsipError, match=r"strata\.json: no such file"):
        measure_ceilings(walkers)
    (tmp_path / "strata.json").write_text('{"part": "test"}')
    with pytest.raises(CsipError, match=r"strata\.json: damaged"):
        load_strata(tmp_path)
