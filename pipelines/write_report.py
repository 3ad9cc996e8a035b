"""The report stage of the chain: metrics, times and files of a run, as Markdown and as an HTML page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from csip.config import Settings
from csip.files import write_text
from pipelines import evaluate_skeletons
from pipelines.console import RichMonitor, console
from pipelines.extract_skeletons import preview
from pipelines.markdown import code, plain
from pipelines.report_page import page
from pipelines.report_page.cards import looks_note, some_look_alike, strata_table
from pose_cache.outcome import read_record


def run(settings: Settings, run_folder: Path, model: Path | None, cache: Path) -> None:
    """Write ``RUN/report.html``, and where the run was scored ``RUN/report.md``, from what the stages have left.

    Parameters
    ----------
    model
        Another run's model, where the run has none: the run, its folder ``stage2``, or the file.
    cache
        The skeletons' file.

    Raises
    ------
    CsipError
        The run has neither metrics nor descriptors.
    """
    scored = page.read_json(run_folder / "metrics.json")
    if scored is not None and scored.get("kind") == "skeletons":
        evaluate_skeletons.report(scored, run_folder)
        out = page.write_skeletons(scored, run_folder)
    else:
        with RichMonitor() as monitor:
            out = page.write(settings, run_folder, model, cache, monitor)  # which refuses what is stale
        if scored is not None:
            write_markdown(settings, run_folder, scored, read_record(cache))
    console.print(f"report -> {out} ({out.stat().st_size / 2**20:.1f} MB, opens in any browser)")


def write_markdown(
    settings: Settings, run_folder: Path, scored: dict[str, Any], skeletons: dict[str, Any] | None
) -> None:
    """Write ``RUN/report.md``; `scored` is the run's ``metrics.json``, `skeletons` the record of the skeleton cache."""
    data = settings.dataset.path
    synth = page.read_json(data / "synth.json")
    stage1, stage2 = (page.read_json(run_folder / name / "metrics.json") for name in ("stage1", "stage2"))
    lines = [
        f"# {plain(settings.dataset.name)}: re-identification report",
        "",
        *_ranking(scored),
        *_skeletons(skeletons),
        *_stage1(stage1),
    ]

    lines += ["## Time", "", "| stage | seconds |", "|---|---:|"]
    stages = {
        "render people": synth,
        "extract skeletons": skeletons,
        "stage 1": stage1,
        "stage 2": stage2,
        "evaluate": scored,
    }
    times = {name: record["seconds"] for name, record in stages.items() if record is not None}
    lines += [f"| {name} | {seconds:.0f} |" for name, seconds in times.items()]
    lines += [f"| total | {sum(times.values()):.0f} |", ""]

    lines += ["## Files", ""]
    files = {
        "skeletons": data / "skeletons.h5",
        "skeleton encoder (stage 1)": run_folder / "stage1" / "model.safetensors",
        "model (stage 2)": run_folder / "stage2" / "model.safetensors",
        "metrics": run_folder / "metrics.json",
        "training curves": run_folder,
    }
    lines += [f"* {what}: {code(path)}" for what, path in files.items() if path.exists()]
    curves = code(f".venv/bin/tensorboard --logdir {shlex.quote(str(run_folder))}")
    lines += [f"\nTraining curves: {curves}", ""]
    if (data / "skeletons.h5").exists():
        preview(data / "skeletons.h5", data, run_folder / "skeletons.png")
        lines += [
            "Crops of training tracklets with their skeletons, from the front and the side:",
            "",
            "![](skeletons.png)",
            "",
        ]
    out = run_folder / "report.md"
    write_text(out, "\n".join(lines))
    console.print(f"report -> {out}")


def _ranking(scored: dict[str, Any]) -> list[str]:
    protocol, figures = scored["protocol"], scored["figures"]
    alike = some_look_alike(figures)
    split = "" if protocol["split"] is None else f"split {protocol['split']}; "
    lines = [
        f"{figures['valid_queries']} valid queries of {protocol['query_entries']} against {protocol['gallery_entries']} gallery "
        f"{'tracklets' if protocol['level'] == 'tracklet' else 'clips'}. Test identities are not in the training set; {split}"
        f"gallery {protocol['gallery']}, {protocol['sampling']} sampling, matches at other cameras only.",
        "",
        "| model | Rank-1 | Rank-5 | mAP | mINP |"
        + (" look-alikes: Rank-1 | look-alikes: mAP | own pair only: Rank-1 |" if alike else ""),
        "|---|---:|---:|---:|---:|" + ("---:|---:|---:|" if alike else ""),
    ]
    rows = [*scored["compared"].items(), ("**trained**", figures)]
    rows += [("trained, re-ranked", figures["reranked"])] if "reranked" in figures else []
    for label, row in rows:
        values = [row["rank1"], row["rank5"], row["map"], row.get("minp")]
        if alike:
            values += [row.get("lookalikes", {}).get(key) for key in ("rank1", "map", "pair_rank1")]
        lines.append(f"| {label} | " + " | ".join("" if v is None else f"{100 * v:.1f}" for v in values) + " |")
    if figures["intervals"]:
        spans = {
            key: "{:.1f} to {:.1f}".format(*(100 * v for v in figures["intervals"][key])) for key in ("rank1", "map")
        }
        lines += ["", f"Intervals ({protocol['intervals']}): Rank-1 {spans['rank1']}, mAP {spans['map']}."]
    lines += _strata(scored)
    if note := looks_note(protocol):
        lines += ["", note]
    lines += ["", "| query's camera | queries | valid | Rank-1 | mAP |", "|---|---:|---:|---:|---:|"]
    for camera, row in figures["cameras"].items():
        shares = [f"{100 * row[key]:.1f}" if key in row else "" for key in ("rank1", "map")]
        lines.append(f"| {plain(camera)} | {row['queries']} | {row['valid_queries']} | {' | '.join(shares)} |")
    if alike:
        lines += [
            "",
            f"Look-alikes ({figures['lookalikes']['valid_queries']} queries) have a twin in the same clothing among the test "
            "identities. Clothing finds the pair; only body and motion tell the two apart.",
        ]
    return [*lines, ""]


def _strata(scored: dict[str, Any]) -> list[str]:
    table = strata_table(scored)
    if table is None:
        return []
    lines = ["", "| " + " | ".join(table.head) + " |", "|---|" + "---:|" * (len(table.head) - 1)]
    lines += ["| " + " | ".join(map(plain, row)) + " |" for row in table.rows]
    return [*lines, "", f"{table.caption}."]


def _skeletons(record: dict[str, Any] | None) -> list[str]:
    if record is None:
        return []
    line = (
        f"Skeletons of {record['frames']:,} frames by the estimator `{record['estimator']}`, "
        f"{record['frames_per_second']:.0f} frames/s; {record['invalid']} frames without a pose."
    )
    if record.get("pa_mpjpe_mm") is not None:
        line += (
            f" Against the true joints: PA-MPJPE {record['pa_mpjpe_mm']:.1f} mm, "
            f"2D PCK@0.05 of the crop's height {100 * record['pck']:.1f} %."
        )
    return ["## Skeletons", "", line, ""]


def _stage1(record: dict[str, Any] | None) -> list[str]:
    if record is None or record["retrieval"] is None:
        return []
    found = record["retrieval"]
    return [
        "## Stage 1: skeleton to image, held-out training identities", "",
        f"Rank-1 {100 * found['rank1']:.1f} (chance {100 * found['chance_rank1']:.1f}), mAP {100 * found['map']:.1f} "
        f"(chance {100 * found['chance_map']:.1f}), {found['queries']} queries, other cameras only.", "",
    ]  # fmt: skip
