"""The commands around the skeleton cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipelines.cli.options import Cache, Config, Dataset, Replace, Root, Set, Workers

app = typer.Typer(help="Extract 3D skeletons into a cache, and look at one.")


@app.callback(invoke_without_command=True)
def skeletons(
    context: typer.Context,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    set_: Set = None,
    out: Annotated[
        Path | None, typer.Option(help="The cache, if not skeletons.h5 in the data set.", show_default=False)
    ] = None,
    test_too: Annotated[
        bool, typer.Option("--test-too", help="Also query and gallery, which training does not need.")
    ] = False,
    flip_test: Annotated[
        bool, typer.Option("--flip-test", help="Average with the mirrored crop: better, half as fast.")
    ] = False,
    shard_frames: Annotated[int, typer.Option(help="Frames that a killed run can lose at most.")] = 4096,
    batch_size: Annotated[
        int | None,
        typer.Option(help="Crops estimated at once, if not 16 on a CPU and 256 on a GPU.", show_default=False),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(help="A worker each, e.g. cuda:0,cuda:1 or cpu,cpu; if not runtime.device.", show_default=False),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Torch threads of each worker on a CPU; decides the last bits.", show_default=False),
    ] = None,
    precision: Annotated[Literal["32", "bf16", "16"], typer.Option(help="Of both models; 16 wants a GPU.")] = "32",
    backend: Annotated[
        str | None, typer.Option(help="Joblib backend: loky, threading, dask, ray, ...", show_default=False)
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="JOB/JOBS: do this share; `merge` joins the shares.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a cache that another estimator made.")] = False,
) -> None:
    """Extract the 3D skeletons of the training tracklets; goes on where it was stopped."""
    if context.invoked_subcommand is not None:
        return
    from csip.data.readers import load_dataset
    from pipelines import extract_skeletons as stage
    from pipelines import paths
    from pose_cache.extract import Share

    settings = paths.settings_for(dataset, config, root, set_ or [])
    data = load_dataset(settings.dataset)
    stage.extract_skeletons(
        data,
        paths.skeleton_file(settings, out),
        estimator=settings.estimator,
        splits=stage.splits_for(data, test_too),
        device=devices or settings.runtime.device,
        batch_size=batch_size,
        shard_frames=shard_frames,
        workers=max(settings.runtime.workers, 1),
        threads=threads,
        backend=backend,
        share=None if shard is None else Share.parse(shard),
        flip_test=flip_test,
        precision=precision,
        force=force,
    )


@app.command("merge")
def skeletons_merge(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: Annotated[
        Path | None, typer.Option(help="The cache, if not skeletons.h5 in the data set.", show_default=False)
    ] = None,
    test_too: Annotated[bool, typer.Option("--test-too", help="As the jobs were told.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a cache that another estimator made.")] = False,
) -> None:
    """Join what the jobs of `csip skeletons --shard` have extracted, once all are done."""
    from csip.data.readers import load_dataset
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    data = load_dataset(settings.dataset)
    stage.merge(
        data,
        paths.skeleton_file(settings, out),
        estimator=settings.estimator,
        splits=stage.splits_for(data, test_too),
        force=force,
    )


@app.command("import-kinect")
def skeletons_import_kinect(
    arrays: Annotated[Path, typer.Argument(help=".npz of (T, 20, 3) joints in metres, a key a tracklet.")],
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="The cache to make.", show_default=False)] = None,
    mirrored: Annotated[bool, typer.Option("--mirrored", help="The sensor's left is the person's right.")] = False,
    force: Replace = False,
) -> None:
    """Make the cache of Kinect v1 skeletons."""
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
            help="Folder of JSON files that mirrors the images; by default skeleton_3d* beside them.",
            show_default=False,
        ),
    ] = None,
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="The cache to make.", show_default=False)] = None,
    unit: Annotated[str, typer.Option(help="Unit of the numbers.")] = "m",
    test_too: Annotated[bool, typer.Option("--test-too", help="Also query and gallery.")] = False,
    workers: Workers = 2,
    force: Replace = False,
) -> None:
    """Make the cache of JSON skeletons, one file a frame: the layout of the method's authors."""
    from csip.data.readers import load_dataset
    from pipelines import extract_skeletons as stage
    from pipelines import paths

    settings = paths.settings_for(dataset, config, root, [])
    stage.import_json(
        load_dataset(settings.dataset),
        folder,
        paths.skeleton_file(settings, out),
        splits=stage.SPLITS if test_too else ("train",),
        unit=unit,
        workers=workers,
        force=force,
    )


@app.command("export-json")
def skeletons_export_json(
    cache: Annotated[Path, typer.Argument(help="The cache.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make.")],
    workers: Workers = 2,
) -> None:
    """Write a cache as JSON files, one a frame; goes on where it was stopped."""
    from pipelines import extract_skeletons as stage

    stage.export_json(cache, folder, workers=workers)


@app.command("info")
def skeletons_info(
    cache: Annotated[Path, typer.Argument(help="The cache.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Say what is in a cache and where it comes from."""
    from pipelines import extract_skeletons as stage

    stage.info(cache, as_json=as_json)


@app.command("preview")
def skeletons_preview(
    dataset: Dataset = None,
    config: Config = None,
    root: Root = None,
    skeletons: Cache = None,
    out: Annotated[Path | None, typer.Option(help="The picture, if not beside the cache.", show_default=False)] = None,
    tracklets: Annotated[int, typer.Option(help="How many, spread over the cache.")] = 6,
    frames: Annotated[int, typer.Option(help="Frames of each, spread over it.")] = 4,
    name: Annotated[
        list[str] | None, typer.Option("--name", help="This tracklet instead; may be repeated.", show_default=False)
    ] = None,
) -> None:
    """Draw crops with their 2D and 3D skeletons."""
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
def skeletons_verify(cache: Annotated[Path, typer.Argument(help="The cache.")]) -> None:
    """Check a cache: its sizes, its names, and every tracklet's checksum."""
    from pipelines import extract_skeletons as stage

    if not stage.verify(cache):
        raise typer.Exit(1)
