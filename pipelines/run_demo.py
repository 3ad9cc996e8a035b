"""The whole chain on rendered people, in the current folder: what `make demo` does, without Make and without a clone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from csip.data.readers import load_dataset
from csip.data.skeletons import SPLITS
from csip.synthetic.world import SyntheticSpec
from pipelines import evaluate_run, extract_skeletons, paths, render_tracklets, train_stage1, train_stage2, write_report
from pipelines.console import console
from pose_cache.extract import ExtractOptions

# A world that no choice was made on.
PEOPLE = SyntheticSpec(
    seed=5, train_ids=96, test_ids=48, cameras=3, tracklets_per_camera=1, frames=64, twin_share=1.0, world="motion"
)


def run(changes: list[str], spec: SyntheticSpec, workers: int) -> None:
    """Run the stages whose output is missing or older than what it is made from, and print the report card.

    Parameters
    ----------
    changes
        Settings, ``KEY=VALUE``.
    spec
        What to render, where ``data/demo`` is not there.
    workers
        Processes that render.
    """
    settings = paths.settings_for("demo", None, None, changes)
    data, folder = settings.dataset.path, paths.run_folder(settings, None)
    truth, cache, report = data / "truth.npz", paths.skeleton_file(settings, None), folder / "report.md"
    stage1, stage2 = (folder / name / "model.safetensors" for name in ("stage1", "stage2"))
    metrics = folder / "metrics.json"

    def extract() -> None:
        extract_skeletons.extract_skeletons(
            load_dataset(settings.dataset),
            cache,
            estimator=settings.estimator,
            splits=SPLITS,
            options=ExtractOptions(device=settings.runtime.device),
        )

    stages: list[tuple[Path, Path | None, Callable[[], None]]] = [
        (truth, None, lambda: render_tracklets.run(data, spec, workers, force=True)),
        (cache, truth, extract),
        (stage1, cache, lambda: train_stage1.run(settings, cache, folder, overwrite=True)),
        (stage2, stage1, lambda: train_stage2.run(settings, cache, folder, overwrite=True)),
        (metrics, stage2, lambda: evaluate_run.run(settings, folder, cross_dataset=False)),
        (report, metrics, lambda: write_report.run(settings, folder, None, cache)),
    ]
    for output, source, make in stages:
        if is_stale(output, [] if source is None else [source]):
            make()
    console.print(report.read_text(), markup=False, highlight=False, soft_wrap=True)


def is_stale(output: Path, sources: Sequence[Path]) -> bool:
    """Tell whether a file is missing or older than one that it is made from."""
    return not output.exists() or any(source.stat().st_mtime_ns > output.stat().st_mtime_ns for source in sources)
