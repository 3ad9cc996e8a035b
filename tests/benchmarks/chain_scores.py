"""From rendered videos to proposed people, and how many of them are right."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score
from track_scores import matches, overlaps, truth_rows

from csip.config import Settings, load_settings
from csip.models.checkpoints import save_model
from csip.models.factory import untrained_like
from csip.video.ingest import DetectorOptions
from csip.video.one_video import IngestOptions
from pipelines import cluster_people as cluster
from pipelines import embed_tracklets as embed
from pipelines import ingest_videos as ingest
from pose_cache.shipped import CONFIGS

SHUFFLES = 1000


@dataclass(frozen=True)
class Chained:
    """What came out of one scene.

    Attributes
    ----------
    tracklets
        How many there are, of all cameras.
    purity
        Of the crops whose box is some true person's: the share that shows whom most crops of their tracklet show.
    matched
        Share of the crops whose box is some true person's.
    ari, ari_told_people
        Adjusted Rand index of the proposed people; and where the number of people is told.
    chance, chance_95
        Mean and 95th percentile of the same groups with the tracklets shuffled.
    people
        How many were proposed.
    frames_per_second, real_time_factor
        Of ingesting.
    """

    tracklets: int
    purity: float
    matched: float
    ari: float
    ari_told_people: float
    chance: float
    chance_95: float
    people: int
    frames_per_second: float
    real_time_factor: float


def pretrained_model(folder: Path) -> Path:
    """Write the demo's model as it is before both stages, its image encoder pretrained; return its folder."""
    settings = load_settings(CONFIGS / "rendered.yaml", [])
    description = {
        "kind": "stage2", "dataset": "demo", "settings": settings.model_dump(mode="json"), "joint_set": "h36m17",
        "width": json.loads((CONFIGS / "vision" / "demo.json").read_text())["embed_dim"], "identities": 2,
        "cameras": {"1": 0, "2": 1},
    }  # fmt: skip
    save_model(folder / "model.safetensors", untrained_like(description, pretrained=True).state_dict(), description)
    return folder


def run_chain(scene: Path, source: str, out: Path, model: Path, device: str) -> Chained:
    """Ingest, embed and cluster the videos of a scene into the data set `out`."""
    chosen = DetectorOptions(name=source, boxes=scene / "det" if source == "boxes" else None)
    summary = ingest.run(scene / "videos", out, chosen, IngestOptions(margin=0.05))
    settings = folder_settings(out, device)
    run = out.with_name(f"{out.name}-run")
    embed.run(settings, run, model)
    names, true, purity, matched = true_people(out, scene)
    found = cluster.run(settings, run)
    ari, groups = compare(out, names, true)
    cluster.run(settings, run, people=len(np.unique(true)), force=True)
    told, _ = compare(out, names, true)
    chance = shuffled(groups, true)
    return Chained(
        len(names), purity, matched, ari, told, float(chance.mean()), float(np.quantile(chance, 0.95)), found.proposal.count,
        summary.frames_per_second or 0.0, summary.real_time_factor or 0.0,
    )  # fmt: skip


def folder_settings(root: Path, device: str = "cpu") -> Settings:
    return load_settings(
        CONFIGS / "folder.yaml",
        [f"dataset.name={root.name}", f"dataset.root={root}", f"runtime.device={device}", "runtime.workers=0"],
    )


def true_people(root: Path, scene: Path) -> tuple[list[str], np.ndarray, float, float]:
    """Say who is on each tracklet: whose true boxes match its boxes most often.

    Returns
    -------
    names, people, purity, matched
        A tracklet that matches nobody is a person of its own, numbered below 0; the shares are those of `Chained`.
    """
    truths = {path.stem: truth_rows(path)[0] for path in (scene / "gt").iterdir()}
    votes: dict[str, list[int]] = {}
    frames: dict[tuple[str, int], list[tuple[str, list[float]]]] = {}
    with (root / "tracklets.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
            key = (row["camera"], int(row["number"]))
            frames.setdefault(key, []).append((row["tracklet"], [x, y, x + width, y + height]))
    for (camera, number), entries in frames.items():
        there = truths[camera][truths[camera][:, 0] == number]
        people = np.zeros(len(entries), int)
        rows, columns = matches(overlaps(there[:, 2:], np.array([box for _, box in entries])))
        people[columns] = there[rows, 1]
        for (name, _), person in zip(entries, people.tolist(), strict=True):
            votes.setdefault(name, []).append(person)
    names = sorted(votes)
    people = np.empty(len(names), int)
    most = crops = every = 0
    for row, name in enumerate(names):
        seen = np.bincount(votes[name], minlength=2)[1:]
        people[row] = seen.argmax() + 1 if seen.any() else -1 - row
        most, crops, every = most + int(seen.max()), crops + int(seen.sum()), every + len(votes[name])
    return names, people, most / max(crops, 1), crops / max(every, 1)


def compare(root: Path, names: list[str], true: np.ndarray) -> tuple[float, list[str]]:
    """Return the adjusted Rand index of labels.csv, and the proposed person of each tracklet."""
    with (root / "labels.csv").open(newline="") as file:
        people = {row["tracklet"]: row["person"] for row in csv.DictReader(file)}
    groups = [people[name] for name in names]
    return float(adjusted_rand_score(true, groups)), groups


def shuffled(groups: list[str], true: np.ndarray) -> np.ndarray:
    """Return the index of the same groups with the tracklets shuffled, SHUFFLES times."""
    rng = np.random.default_rng(0)
    return np.array([adjusted_rand_score(true, rng.permutation(groups)) for _ in range(SHUFFLES)])
