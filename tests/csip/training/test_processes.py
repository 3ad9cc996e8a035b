"""Training in several processes has the loss of one, with any batch and with every row of the ablation."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from csip.config import Settings
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pipelines.ablate import rows_of

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


PROGRAM = """
import json, os, sys, torch
from pathlib import Path
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from csip.config import Settings
from test_processes import train
for name, tree in json.loads(Path(sys.argv[1]).read_text()).items():
    train(name, Settings.model_validate(tree), Path(sys.argv[3]))
    place = Path(sys.argv[3]) / f"{name.replace(' ', '-')}-{os.environ['RANK']}.seed"
    place.write_text(str(torch.initial_seed()))
"""


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_have_the_loss_of_one(processes: int, settings: Settings, tmp_path: Path) -> None:
    chosen = runs(settings)
    if processes == 2:
        chosen = {name: chosen[name] for name in ("stage1 random", "stage1 camera", "stage2 distillation")}
    alone = {name: train(name, one, tmp_path / "one") for name, one in chosen.items()}
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
        assert many["retrieval"] == pytest.approx(one["retrieval"]) if "retrieval" in one else True
