"""Ingest and embedding on real clusters of two workers, dask's and ray's, of which one is killed in the middle."""

from __future__ import annotations

import importlib.util
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import LocalCluster

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.retrieval import in_parts
from csip.retrieval.in_parts import embed_to_file
from csip.retrieval.model import Model
from csip.retrieval.model import tested as tracklets_of_test
from csip.synthetic.videos import SceneSpec, render_videos
from csip.video.ingest import DetectorOptions, ingest
from csip.video.one_video import IngestOptions
from csip.video.tracklets import TrackletRules
from pose_cache import pieces
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Spread

pytestmark = pytest.mark.slow


@dataclass
class Cluster:
    """A cluster of two workers; `workers` returns their processes, once they work."""

    backend: str
    workers: Callable[[], list[psutil.Process]]
    no_second_try: Callable[[], AbstractContextManager[object]] = nullcontext


def dask_cluster() -> Iterator[Cluster]:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        dask.config.set({"scheduler-address": cluster.scheduler_address}),
    ):

        def workers() -> list[psutil.Process]:
            return [psutil.Process(worker.pid) for worker in cluster.workers.values() if worker.pid]

        @contextmanager
        def no_second_try() -> Iterator[None]:
            cluster.scheduler.allowed_failures, before = 0, cluster.scheduler.allowed_failures
            yield
            cluster.scheduler.allowed_failures = before

        yield Cluster("dask", workers, no_second_try)


def ray_cluster() -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs ray: pip install ray")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)

    def workers() -> list[psutil.Process]:
        children = psutil.Process().children(recursive=True)
        return [child for child in children if "PoolActor" in " ".join(child.cmdline())]

    yield Cluster("ray", workers)
    ray.shutdown()


@pytest.fixture(scope="module", params=[dask_cluster, ray_cluster], ids=["dask", "ray"])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Its workers were started in another folder than the work."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    try:
        yield from request.param()
    finally:
        os.chdir(before)


class Killer:
    """Kills a worker as soon as `begun` says so."""

    def __init__(self, cluster: Cluster, begun: Callable[[], bool]) -> None:
        self._cluster, self._begun = cluster, begun
        self._thread = threading.Thread(target=self._kill, daemon=True)
        self.killed: int | None = None

    def _kill(self) -> None:
        while not self._begun():
            time.sleep(0.002)
        victim = self._cluster.workers()[0]
        victim.send_signal(signal.SIGKILL)
        victim.wait(10)
        self.killed = victim.pid

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(20)
        assert self.killed is not None


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    render_videos(folder, SceneSpec(people=1, cameras=8, seconds=2, fps=5, height=108), workers=1)
    return folder / "videos"


def test_ingest_is_the_same_with_a_worker_killed(
    cluster: Cluster, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = DetectorOptions("boxes", videos.parent / "gt")
    options = IngestOptions(rules=TrackletRules(min_frames=1, min_height=4, min_width=4, min_change=0))
    expected = ingest(videos, tmp_path / "whole", found, options)
    assert expected.ingested == 8 and expected.crops > 20
    monkeypatch.chdir(tmp_path)
    out = Path("out")
    with Killer(cluster, lambda: any((tmp_path / "out").glob(".ingest/videos/*.json"))):
        made = ingest(videos, out, found, options, spread=Spread(backend=cluster.backend))
    assert replace(made, created="", elapsed=0) == replace(expected, created="", elapsed=0)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def content(out: Path) -> dict[str, bytes]:
    files = [out / "tracklets.csv", *out.glob("crops/**/*"), *(out / ".ingest/work").glob("**/*")]
    return {file.relative_to(out).as_posix(): file.read_bytes() for file in files if file.is_file()}


def test_embedding_is_the_same_with_a_worker_killed(
    cluster: Cluster,
    untrained: Callable[[Settings], Path],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(in_parts, "SHARD", 2)
    model: Model = csip.loading.load(untrained(settings), runtime=settings.runtime)
    dataset = load_dataset(settings.dataset)
    expected = model.embed(dataset)
    monkeypatch.chdir(tmp_path)
    near = Dataset(**{**vars(dataset), "root": Path(os.path.relpath(dataset.root))})
    with Killer(cluster, lambda: any(tmp_path.glob(".out.h5.shards/*.npy"))):
        spread = Spread(backend=cluster.backend)
        made = embed_to_file(model, near, tracklets_of_test(near), Path("out.h5"), spread, Silent())
    assert made is not None and np.array_equal(made.features, expected.features)


def test_a_piece_that_kills_every_worker_ends_the_work(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(piece: int) -> int:  # inside, so that it is sent by its value: workers cannot import this file
        os.kill(os.getpid(), signal.SIGKILL)
        return piece

    monkeypatch.setattr(pieces, "_RAY", {})
    with pytest.raises(PoseCacheError, match="a worker process was killed"), cluster.no_second_try():
        list(Spread(backend=cluster.backend).run(die, [1]))
