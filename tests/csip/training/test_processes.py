"""Several processes train, embed and evaluate as one does: with any batch, and with every row of the ablation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning_fabric import Fabric

import csip
import csip.retrieval.model
from csip.config import Settings
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.retrieval.descriptors import read_descriptors
from csip.retrieval.evaluation import TEACHER, evaluate
from csip.retrieval.in_parts import embed_to_file
from csip.runtime import share_out
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pipelines.ablate import rows_of
from pose_cache.pieces import Spread

pytestmark = pytest.mark.slow


def change(settings: Settings, section: str, **values: object) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


def runs(settings: Settings) -> dict[str, Settings]:
    """Name the runs: nothing random in the models, as each process draws for its own clips."""
    settings = change(settings, "skeleton_encoder", dropout=0.0, sign_flips=False)
    settings = change(settings, "stage1", epochs=2, batch=11, val_every=2)
    settings = change(settings, "stage2", epochs=1, ids_per_batch=3, tracklets_per_id=2)
    named = {
        "stage1 random": settings,
        "stage1 camera": change(settings, "stage1", batches="camera", batch=5),
        **{f"stage2 {row.folder}": row.settings for row in rows_of(settings)},
    }
    named["stage2 everything that may train"] = change(
        settings, "stage2", train_skeleton_encoder=True, detach_tokens=False, detach_visual=False, fusion="gate"
    )
    return named


def train(name: str, settings: Settings, out: Path) -> dict[str, Any]:
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    if name.startswith("stage1"):
        return train_stage1(dataset, skeletons, settings, out / name.replace(" ", "-"), Silent()).as_dict()
    return train_stage2(
        dataset, skeletons, out / "stage1-random", settings, out / name.replace(" ", "-"), Silent()
    ).as_dict()


def use(settings: Settings, out: Path, fabric: Fabric | None = None) -> tuple[dict[str, Any], np.ndarray]:
    """Evaluate a model that `train` has made, and embed what it was evaluated on; returns metrics and descriptors."""
    dataset = load_dataset(settings.dataset)
    compared = settings.evaluation.model_copy(update={"compare_untrained": True})
    path = out / "stage2-distillation" / "model.safetensors"
    model = csip.load(path, "cpu", evaluation=compared, runtime=settings.runtime)
    found = evaluate(model, dataset, fabric=fabric, skeletons=out / "tested.h5").as_dict()
    assert TEACHER in found["compared"], "the model as its own teacher is embedded by all, too"
    del found["seconds"]
    everyone = csip.retrieval.model.tested(dataset)
    if fabric is None:
        return found, model.embed_tracklets(dataset, everyone).features
    share_out(
        fabric, Spread(), lambda spread: embed_to_file(model, dataset, everyone, out / "all.h5", spread, Silent())
    )
    return found, read_descriptors(out / "all.h5").features


PROGRAM = """
import json, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import csip.retrieval.controls, csip.retrieval.embedding, csip.retrieval.in_parts
import numpy as np
from csip.config import Settings
from csip.runtime import make_fabric
from test_processes import train, use
out, rank = Path(sys.argv[3]), os.environ["RANK"]
decoded, plain = [], csip.retrieval.embedding.read_frames
csip.retrieval.embedding.read_frames = lambda root, frames, of: decoded.append(frames) or plain(root, frames, of)
csip.retrieval.controls.read_frames = csip.retrieval.embedding.read_frames
for name, tree in json.loads(Path(sys.argv[1]).read_text()).items():
    settings = Settings.model_validate(tree)
    train(name, settings, out)
    (out / f"{name.replace(' ', '-')}-{rank}.seed").write_text(str(torch.initial_seed()))
validated, decoded[:] = len(decoded), []
csip.retrieval.in_parts.SHARD = 3
found, features = use(settings, out, make_fabric(settings.runtime))
np.save(out / f"{rank}.npy", features)
(out / f"{rank}.json").write_text(json.dumps({"metrics": found, "decoded": len(decoded), "validated": validated}))
"""


@pytest.fixture(scope="module")
def alone(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each run comes to in one process."""
    out = tmp_path_factory.mktemp("one")
    return {name: train(name, one, out) for name, one in runs(settings).items()}


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_have_the_loss_of_one(
    processes: int, alone: dict[str, dict[str, Any]], settings: Settings, whole_cache: Path, tmp_path: Path
) -> None:
    chosen = runs(settings)
    (tmp_path / "many").mkdir()
    shutil.copyfile(whole_cache, tmp_path / "many/tested.h5")
    (tmp_path / "runs.json").write_text(json.dumps({n: s.model_dump(mode="json") for n, s in chosen.items()}))
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    arguments = [str(tmp_path / part) for part in ("program.py", "runs.json")]
    run = subprocess.run(
        [*command, *arguments, str(Path(__file__).parent), str(tmp_path / "many")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    for name, one in alone.items():
        seeds = [path.read_text() for path in (tmp_path / "many").glob(f"{name.replace(' ', '-')}-*.seed")]
        assert len(seeds) == len(set(seeds)) == processes, "each process draws its own dropout and sign flips"
        many = json.loads((tmp_path / "many" / name.replace(" ", "-") / "metrics.json").read_text())
        for figure in {"loss", "ce", "triplet", "csip", "frame", "distill"} & one.keys():
            assert many[figure] == pytest.approx(one[figure], rel=1e-3, abs=1e-4), (name, figure)
        assert many.get("retrieval") == pytest.approx(one.get("retrieval")), name
        if name.startswith("stage2"):
            assert [score["map"] for score in many["validation"]] == pytest.approx(
                [s["map"] for s in one["validation"]]
            )
    check_use(settings, tmp_path / "many", processes)


def check_use(settings: Settings, out: Path, processes: int) -> None:
    """Compare what several processes have embedded and measured with what one does of the same model."""
    parts = [json.loads((out / f"{rank}.json").read_text()) for rank in range(processes)]
    metrics, features = use(settings, out)
    assert all(part["metrics"] == json.loads(json.dumps(metrics)) for part in parts)
    assert all(np.array_equal(np.load(out / f"{rank}.npy"), features) for rank in range(processes))
    thrice = 3 * len(features)  # by the networks, by the teacher, into the file
    assert sum(part["decoded"] for part in parts) == thrice, "each tracklet is read by one process"
    assert all(0 < part["decoded"] <= thrice / processes + 6 for part in parts), "all have a share"
    validated = [part["validated"] for part in parts]
    assert all(0 < one < 2 * sum(validated) / processes for one in validated), (
        "all validate a share while training, too"
    )
