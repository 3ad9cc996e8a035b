"""`csip synth --world motion` and `csip ceilings`: what they write and print."""

import json
import shutil
from pathlib import Path

import pytest

from csip.config import load_settings
from csip.errors import CsipError
from csip.models.checkpoints import save_model
from csip.models.factory import empty_encoder
from csip.models.losses import LearnableTemperature
from csip.synthetic.world import SyntheticSpec
from pipelines import render_tracklets
from pipelines.advice import advice

SPEC = SyntheticSpec(
    train_ids=8, test_ids=8, cameras=3, tracklets_per_camera=1, frames=8, height=32, width=16, twin_share=1.0,
    distractors=0, junk=0, world="motion", part="test",
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("render") / "motion"
    render_tracklets.run(root, SPEC, workers=1, force=False)
    return root


def test_a_motion_world_says_what_its_joints_tell(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = json.loads((world / "ceilings.json").read_text())
    assert (written["part"], written["people"], written["tracklets"]) == ("test", 8, 24)
    bones = [row for row in written["rows"] if (row["cue"], row["stratum"]) == ("proportions", "body")]
    assert [(row["frames"], row["own_twin"]) for row in bones] == [(8, 1.0)]
    assert json.loads((world / "synth.json").read_text())["crops"] == 16 * 3 * 8

    render_tracklets.run_ceilings(world, None)
    shown = " ".join(capsys.readouterr().out.split())
    assert "test people, true joints" in shown and "8 people, 24 tracklets" in shown
    for words in ("proportions", "mean pose", "spectrum", "differ in cadence", "100.0% [100, 100] 100.0%"):
        assert words in shown


def test_a_stage_1_encoder_is_measured_beside_the_cues(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(Path("configs/motion.yaml"), [])

    def save(name: str, joints: str) -> Path:
        encoder = empty_encoder(joints, 32, settings)
        tensors = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
        tensors |= {f"temperature.{key}": value for key, value in LearnableTemperature(0.07).state_dict().items()}
        description = {
            "kind": "stage1", "joint_set": joints, "width": 32, "settings": settings.model_dump(mode="json"),
        }  # fmt: skip
        save_model(tmp_path / name, tensors, description)
        return tmp_path / name

    render_tracklets.run_ceilings(world, None, save("model.safetensors", "h36m17"))
    rows = [row for row in json.loads((world / "ceilings.json").read_text())["rows"] if row["cue"] == "encoder"]
    assert [row["stratum"] for row in rows] == ["body", "posture", "swings", "cadence"]
    assert all(row["frames"] == 8 and row["low"] <= row["own_twin"] <= row["high"] for row in rows)
    assert "encoder" in capsys.readouterr().out
    with pytest.raises(
        CsipError, match=r"kinect\.safetensors: expected an encoder of the joints h36m17, found kinect20"
    ):
        render_tracklets.run_ceilings(world, None, save("kinect.safetensors", "kinect20"))


def test_other_skeletons_and_other_folders_are_refused(world: Path, walkers: Path, tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"strata\.json: no such file"):
        render_tracklets.run_ceilings(walkers, None)
    others = shutil.copy2(walkers / "skeletons.h5", tmp_path / "others.h5")
    with pytest.raises(CsipError, match=r"others\.h5: expected skeletons of the test tracklets") as refused:
        render_tracklets.run_ceilings(world, Path(others))
    assert "--test-too" in advice(refused.value.parameter)
    assert not (world / "ceilings_estimated.json").exists()
