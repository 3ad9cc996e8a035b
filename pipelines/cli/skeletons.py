"""The commands around the skeleton cache."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.options import (
    Backend,
    Cache,
    CacheOut,
    Config,
    Dataset,
    Merge,
    Precision,
    ReplaceCache,
    Root,
    Set,
    Shard,
    SpreadWorkers,
    Workers,
    spread_of,
)

app = typer.Typer()


@app.callback(invoke_without_command=True)
def skeletons(
    context: typer.Context,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    set_: Set = None,
    out: CacheOut = None,
    test_too: Annotated[
        bool, typer.Option("--test-too", help="Query and gallery too, which training does not need.")
    ] = False,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Average with the mirrored crop: more accurate, half as fast.")
    ] = False,
    shard_frames: Annotated[
        int, typer.Option(help="Frames per shard; a killed run loses at most the shards in flight.")
    ] = 4096,
    batch_size: Annotated[
        int | None, typer.Option(help="Crops per batch.", show_default="16 on a CPU, 256 on a GPU")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="Devices, as many workers each, e.g. cuda:0,cuda:1.", show_default="runtime.device"),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Torch threads per worker on a CPU; may change results by rounding.", show_default="torch's own"
        ),
    ] = None,
    precision: Precision = "32",
    workers: SpreadWorkers = 1,
    backend: Backend = None,
    shard: Shard = None,
    merge: Merge = False,
    force: ReplaceCache = False,
) -> None:
    """Extract the 3D skeletons of the training tracklets into a cache.

    An interrupted command resumes when you rerun it. Subcommands merge, import, export and check caches.

    Example:
      csip skeletons --dataset mars
      csip skeletons --dataset mars --shard 1/8
    """
    if context.invoked_subcommand is not None:
        return
    from csip.data.readers import load_dataset
    from csip.data.skeletons import splits_for
    from pipelines import extract_skeletons as stage
    from pipelines import paths
    from pose_cache.extract import ExtractOptions

    settings = paths.settings_for(dataset, config, root, set_ or [])
    spread = spread_of(workers, backend, shard, merge)
    data = load_dataset(settings.dataset)
    cache, splits = paths.skeleton_file(settings, out), splits_for(data, test_too)
    if merge:
        stage.merge(data, cache, estimator=settings.estimator, splits=splits, force=force)
        return
    stage.extract_skeletons(
        data,
        cache,
        estimator=settings.estimator,
        splits=splits,
        options=ExtractOptions(
            device=",".join([devices or settings.runtime.device] * workers),
            batch_size=batch_size,
            shard_frames=shard_frames,
            workers=max(settings.runtime.decoders, 1),
            threads=threads,
            backend=backend,
            flip_test=flip_test,
            precision=precision,
        ),
        share=spread.share,
        force=force,
    )


@app.command("merge")
def skeletons_merge(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: CacheOut = None,
    test_too: Annotated[bool, typer.Option("--test-too", help="As given to the jobs.")] = False,
    force: ReplaceCache = False,
) -> None:
    """Merge the shares of `csip skeletons --shard`, once all jobs are done: the same as --merge.

    Example:
      csip skeletons merge --dataset mars
    """
    from csip.data.readers import load_dataset
    from csip.data.skeletons import splits_for
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    data = load_dataset(settings.dataset)
    stage.merge(
        data,
        paths.skeleton_file(settings, out),
        estimator=settings.estimator,
        splits=splits_for(data, test_too),
        force=force,
    )


@app.command("import-kinect")
def skeletons_import_kinect(
    arrays: Annotated[Path, typer.Argument(help="File .npz: per tracklet an array (T, 20, 3) of joints in metres.")],
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: CacheOut = None,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="The sensor's left is the person's right.")] = False,
    force: ReplaceCache = False,
) -> None:
    """Import Kinect v1 skeletons into a cache.

    Example:
      csip skeletons import-kinect kinect.npz --dataset mine
    """
    from csip.data.readers import load_dataset
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    cache = paths.skeleton_file(settings, out)
    stage.import_kinect(load_dataset(settings.dataset), arrays, cache, mirrored=mirrored, force=force)


@app.command("import-json")
def skeletons_import_json(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of JSON files that mirrors the images.", show_default="skeleton_3d* beside the images"
        ),
    ] = None,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: CacheOut = None,
    unit: Annotated[str, typer.Option(help="Unit of the coordinates.")] = "m",
    test_too: Annotated[bool, typer.Option("--test-too", help="Query and gallery too.")] = False,
    workers: Workers = 2,
    force: ReplaceCache = False,
) -> None:
    """Import JSON skeletons, one file per frame: the authors' layout.

    Example:
      csip skeletons import-json --dataset mars
    """
    from csip.data.readers import load_dataset
    from csip.data.skeletons import SPLITS
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    stage.import_json(
        load_dataset(settings.dataset),
        folder,
        paths.skeleton_file(settings, out),
        splits=SPLITS if test_too else ("train",),
        unit=unit,
        workers=workers,
        force=force,
    )


@app.command("export-json")
def skeletons_export_json(
    cache: Annotated[Path, typer.Argument(help="Skeleton cache.")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.")],
    workers: Workers = 2,
) -> None:
    """Export a cache as JSON files, one per frame.

    An interrupted command resumes when you rerun it.

    Example:
      csip skeletons export-json data/mars/skeletons.h5 data/mars/skeleton_3d
    """
    from pipelines import extract_skeletons as stage

    stage.export_json(cache, folder, workers=workers)


@app.command("info")
def skeletons_info(
    cache: Annotated[Path, typer.Argument(help="Skeleton cache.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")] = False,
) -> None:
    """Describe a cache: content, estimator, versions.

    Example:
      csip skeletons info data/mars/skeletons.h5
    """
    from pipelines import extract_skeletons as stage

    stage.info(cache, as_json=as_json)


@app.command("preview")
def skeletons_preview(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    out: Annotated[Path | None, typer.Option(help="Picture to write.", show_default="beside the cache")] = None,
    tracklets: Annotated[int, typer.Option(help="Number of tracklets, spread over the cache.")] = 6,
    frames: Annotated[int, typer.Option(help="Frames per tracklet, spread over it.")] = 4,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="Tracklet to draw instead; repeatable.", show_default=False)
    ] = None,
) -> None:
    """Draw crops with their 2D and 3D skeletons.

    Example:
      csip skeletons preview --dataset demo
    """
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    cache = paths.skeleton_file(settings, skeletons)
    stage.preview(
        cache,
        settings.dataset.path,
        out or cache.with_suffix(".png"),
        tracklets=tracklets,
        frames=frames,
        names=name or (),
    )


@app.command("verify")
def skeletons_verify(cache: Annotated[Path, typer.Argument(help="Skeleton cache.")]) -> None:
    """Check a cache: sizes, names and the checksum of every tracklet.

    Example:
      csip skeletons verify data/mars/skeletons.h5
    """
    from pipelines import extract_skeletons as stage

    if not stage.verify(cache):
        raise typer.Exit(1)
