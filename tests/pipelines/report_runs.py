"""Runs for tests of the report: pictures of coloured figures, descriptors of known quality, and what stages leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from csip.config import Settings
from csip.data.dataset import Dataset, Tracklet
from csip.data.readers import load_dataset
from csip.files import digest
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.retrieval import ranked_lists
from csip.retrieval.descriptors import Descriptors, write_descriptors
from csip.retrieval.metrics import RANKS, by_camera, chance, confidence_intervals
from pose_cache.joints import COCO17, H36M17
from pose_cache.store import Provenance, TrackletSkeletons, write_store

HOSTILE = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
PEOPLE, CAMERAS = 8, 2
TRAINED = "0123456789ab"  # the revision that trained the model


@dataclass(frozen=True)
class Run:
    """A data set and a run on it."""

    settings: Settings
    folder: Path
    dataset: Dataset
    descriptors: Descriptors

    @property
    def cache(self) -> Path:
        return self.dataset.root / "skeletons.h5"


def figure(person: int, camera: int, step: int, height: int = 64, width: int = 32) -> np.ndarray:
    """A picture of somebody, BGR."""
    random = np.random.default_rng(1000 * person + 10 * camera + step)
    image = random.integers(60, 120, (height, width, 3), dtype=np.uint8)
    colour = np.random.default_rng(person).integers(40, 255, 3).tolist()
    cv2.rectangle(image, (width // 3, height // 6), (2 * width // 3, height - 4), colour, -1)
    cv2.circle(image, (width // 2, height // 8), width // 8, (180, 200, 230), -1)
    return image


def folder_data(root: Path, named: bool) -> None:
    """Write tracklets.csv and frames: PEOPLE who are tested, each twice at every camera, and one who trains."""
    lines = ["tracklet,person,camera,frame,part" if named else "tracklet,person,camera,frame"]
    for person in range(PEOPLE + 1):
        for camera in range(1, CAMERAS + 1):
            for walk in range(2):
                folder = f"frames/{person}-{camera}-{walk}"
                (root / folder).mkdir(parents=True)
                title = f"walk-{person}-{camera}-{walk}"
                if (person, camera, walk) == (1, 1, 0):
                    title = HOSTILE
                for step in range(1 if (person, camera, walk) == (2, 1, 0) else 4):
                    frame = f"{folder}/{step:03d}.jpg"
                    wide = 20 if person == 3 else 32
                    cv2.imwrite(str(root / frame), figure(person, camera, step, width=wide))
                    who = f"P{person}" if named else ""
                    quoted = title.replace('"', '""')
                    part = f",{'train' if person == 0 else 'test'}" if named else ""
                    lines.append(f'"{quoted}",{who},cam{camera},{frame}{part}')
    (root / "tracklets.csv").write_text("\n".join(lines) + "\n")


def make_run(base: Path, tower: Path, named: bool = True) -> Run:
    """Make a data set, a model that was never trained, descriptors and, where people are `named`, figures."""
    root, folder = base / "data", base / "run"
    folder_data(root, named)
    settings = Settings.model_validate({
        "dataset": {"name": "figures", "layout": "folder", "root": root},
        "clips": {"frames": 4, "height": 64, "width": 32},
        "vision": {"model": str(tower), "pretrained": None},
        "skeleton_encoder": {"depth": 1, "heads": 2},
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    })  # fmt: skip
    dataset = load_dataset(settings.dataset)
    _skeletons(root, dataset)
    model = folder / "stage2" / "model.safetensors"
    network = build_model(empty_encoder("h36m17", 32, settings), 1.0, 1, CAMERAS, settings, load_vision=False)
    save_model(model, network.state_dict(), {
        "kind": "stage2", "dataset": "figures", "identities": 1, "cameras": {"1": 0, "2": 1}, "joint_set": "h36m17",
        "width": 32, "settings": settings.model_dump(mode="json"), "revision": TRAINED,
    })  # fmt: skip
    _training(folder)
    descriptors = describe(dataset, digest(model))
    write_descriptors(folder / "descriptors.h5", descriptors)
    if named:
        (folder / "metrics.json").write_text(json.dumps(figures_of(descriptors)))
    return Run(settings, folder, dataset, descriptors)


def describe(dataset: Dataset, model: str, width: int = 16, noise: float = 0.55) -> Descriptors:
    """Descriptors about a centre for each person: some queries go wrong."""
    tracklets = list({t.name: t for t in (*dataset.query, *dataset.gallery)}.values())
    random = np.random.default_rng(5)
    # Whose pictures they are, the frames' folders say even where nobody is named.
    who = np.array([t.pid or int(t.frames[0].split("/")[-2].partition("-")[0]) for t in tracklets])
    centres = random.normal(size=(who.max() + 1, width))
    features = centres[who] + noise * random.normal(size=(len(tracklets), width)) * (1 + 2 * (who == 4))[:, None]
    features = (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)
    asked, found = ({t.name for t in part} for part in (dataset.query, dataset.gallery))
    return Descriptors(
        features,
        tuple(t.name for t in tracklets),
        np.array([t.pid for t in tracklets]),
        np.array([t.camera for t in tracklets]),
        np.array([t.name in asked for t in tracklets]),
        np.array([t.name in found for t in tracklets]),
        dataset.name,
        model,
    )


def figures_of(d: Descriptors) -> dict[str, object]:
    """What `csip evaluate` writes of these descriptors."""
    scores = ranked_lists.scores(d)
    figures = {f"rank{k}": scores.cmc[k] for k in RANKS} | {"map": scores.map, "minp": scores.minp}
    expected = chance(d.identities[d.query], d.cameras[d.query], d.identities[d.gallery], d.cameras[d.gallery])
    cameras = by_camera(scores, d.cameras[d.query])
    return {
        "dataset": d.dataset,
        "protocol": {
            "gallery": "with_queries", "level": "tracklet", "query_entries": int(d.query.sum()), "split": None,
            "gallery_entries": int(d.gallery.sum()), "sampling": "dense", "intervals": "95%, bootstrap",
        },
        "model": d.model,
        "figures": figures | {
            "queries": int(d.query.sum()), "valid_queries": scores.valid_queries,
            "intervals": confidence_intervals(scores, samples=50),
            "cameras": {
                str(c): {"queries": 1, "valid_queries": one.valid_queries, "rank1": one.cmc[1], "map": one.map}
                for c, one in cameras.items()
            },
        },
        "compared": {"chance": {f"rank{k}": expected.cmc[k] for k in RANKS} | {"map": expected.map}},
        "seconds": 3.0,
    }  # fmt: skip


def large_dataset(root: Path, queries: int, gallery: int) -> Dataset:
    """As many tracklets as MARS has, of frames of its size; the frames on disk are few and serve many tracklets."""
    random = np.random.default_rng(0)
    (root / "frames").mkdir(parents=True)
    files = []
    for number in range(48):
        rough = random.integers(0, 255, (16, 8, 3), dtype=np.uint8)
        image = cv2.resize(rough, (128, 256), interpolation=cv2.INTER_CUBIC).astype(int)
        image = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        files.append(f"frames/{number}.jpg")
        cv2.imwrite(str(root / files[-1]), image)

    def tracklet(number: int, pid: int) -> Tracklet:
        return Tracklet(f"test/{number:05d}", pid, 1 + number % 6, tuple(random.choice(files, 20).tolist()))

    people = 625
    tracklets = [tracklet(n, 1 + n % people if n < 8000 else 0) for n in range(gallery)]
    return Dataset("large", root, (), tuple(tracklets[:queries]), tuple(tracklets))


def _skeletons(root: Path, dataset: Dataset) -> None:
    def one(t: Tracklet) -> TrackletSkeletons:
        frames = len(t.frames)
        points = np.random.default_rng(0).uniform(4, 28, (frames, COCO17.size, 2))
        keypoints = np.concatenate([points, np.ones((frames, COCO17.size, 1))], axis=2).astype(np.float32)
        keypoints[:, 10, 2] = 0.1  # a wrist that was not found
        joints = np.zeros((frames, H36M17.size, 3), np.float32)
        return TrackletSkeletons(t.name, t.frames, joints, keypoints, np.ones(frames, bool))

    asked = {t.name: t for t in (*dataset.query, *dataset.gallery)}
    write_store(root / "skeletons.h5", [one(t) for t in asked.values()], Provenance("test", "h36m17", "metres"))


def _training(folder: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for stage, tags in (("stage1", ("loss", "lr")), ("stage2", ("ce", "triplet", "validation_map"))):
        writer = SummaryWriter(str(folder / stage))
        for step in range(4):
            for number, tag in enumerate(tags):
                writer.add_scalar(f"{stage}/{tag}", 0.5**step * (1 + number) / 10, step)
        writer.close()
        (folder / stage / "metrics.json").write_text(
            json.dumps({"seconds": 75.0, "chosen_epoch": 4, "retrieval": None})
        )
