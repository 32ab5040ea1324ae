"""`ssd analyse`: what is wrong with a detector, as a page to look at and figures to compute with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from ssdlib.cli.analysis_page import page
from ssdlib.cli.analysis_record import figures_of
from ssdlib.cli.analysis_words import TITLES, advice, verdict
from ssdlib.cli.common import (
    BatchSizeOption,
    DataOption,
    DeviceOption,
    ImageSetOption,
    MaxOverlapOption,
    MinScoreOption,
    ModelArgument,
    TopKOption,
    WorkersOption,
    checkpoint_of,
    clear_errors,
    data_of,
    example,
    model_of,
    printable,
    provenance,
    torch_device,
    weights_note,
    worker_count,
)
from ssdlib.cli.outputs import replaced_folder, require_outside, require_replaceable, require_writable, some_path
from ssdlib.data import open_dataset
from ssdlib.data.files import write_text
from ssdlib.engine import detect_dataset
from ssdlib.engine.analysis import Analysis, analyse
from ssdlib.engine.processes import process_group, rank

app = typer.Typer()

PAGE, FIGURES = "index.html", "analysis.json"
MADE_BY = '{\n  "made_by": "ssd analyse"'
"""How the figures begin: by it a folder is known as ours."""


@app.command(
    "analyse",
    epilog=example(
        "ssd analyse runs/toy",
        "ssd analyse runs/toy --data data/toy --image-set val --score 0.4 --out why",
        "ssd analyse runs/toy --json why.json",
    ),
)
def analyse_command(
    run: ModelArgument,
    data: DataOption = None,
    image_set: ImageSetOption = "test",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to make; by default RUN/analysis.", metavar="PATH", parser=some_path),
    ] = None,
    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Only the figures, to this file, without the page.", metavar="PATH", parser=some_path
        ),
    ] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="The least score that you would show in use.")] = 0.3,
    iou: Annotated[float, typer.Option(help="Overlap from which on an object counts as found.")] = 0.5,
    examples: Annotated[int, typer.Option(min=0, max=500, help="Most false alarms, and misses, to draw.")] = 24,
    min_score: MinScoreOption = 0.01,
    max_overlap: MaxOverlapOption = 0.45,
    top_k: TopKOption = 200,
    batch_size: BatchSizeOption = 16,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Say what is wrong with a detector, and draw it: a folder with index.html and analysis.json.

    Confusion matrix; errors by kind (wrong class, bad place, both, duplicate, background, missed) with the mAP that
    each costs; recall by size and by overlap; how far scores are chances; the worst false alarms and misses on their
    images. The page is one file that needs no network. A folder of an earlier call is replaced, nothing else is.
    """
    with clear_errors(), process_group(torch_device(device)) as own_device:
        folders = data or data_of(run)
        if not 0 < iou <= 1:
            raise ValueError(f"--iou must be above 0 and at most 1, got {iou:g}")
        if min_score > score:
            raise ValueError(f"--score {score:g} is below --min-score {min_score:g}, the least score that is kept")
        if json_file is not None and out is not None:
            raise ValueError("--json writes the figures alone: leave out --out, whose folder holds them too")
        if json_file is not None:
            require_writable(json_file, [checkpoint_of(run)])
            require_outside(json_file, folders)
        else:
            out = _folder(out, run, folders)
        note = weights_note(run)
        model = model_of(run, own_device)
        dataset = open_dataset(folders, image_set, model.classes)
        if json_file is not None:
            require_writable(json_file, map(dataset.image_path, range(len(dataset))))
        options: dict[str, Any] = {"min_score": min_score, "max_overlap": max_overlap, "top_k": top_k}
        found, targets = detect_dataset(
            model, dataset, batch_size=batch_size, workers=worker_count(workers, device), **options
        )
        if rank() > 0:
            return
        sizes = [dataset.size(index) for index in range(len(dataset))]
        analysis = analyse(found, targets, sizes, model.num_classes, score=score, iou_threshold=iou, examples=examples)
        figures = {
            "made_by": "ssd analyse",
            **figures_of(analysis, model.classes),
            "image_set": image_set,
            "detection": options,
            **provenance(run, model, folders),
        }
        text = json.dumps(figures, indent=2, allow_nan=False) + "\n"
        if note:
            typer.echo(note)
        typer.echo(printable(in_text(analysis, model.classes, min_score, max_overlap)))
        if json_file is not None:
            write_text(json_file, text)
            typer.echo(f"figures: {printable(str(json_file))}")
            return
        assert out is not None
        how = [
            ("Detector", f"{run} ({model.architecture})"),
            ("Data", ", ".join(map(str, folders))),
            ("Image set", f"{image_set}, {analysis.images:,} images, {analysis.objects:,} objects that count"),
            ("Detections", f"{len(analysis.errors.outcome):,}, with a score of {min_score:g} and more"),
            ("NMS", f"at an IoU of {max_overlap:g}, then the best {top_k} of an image"),
            ("AP", "area under the precision envelope"),
        ]
        html = page(
            analysis,
            dataset,
            found,
            run=str(run),
            how=[(name, printable(value)) for name, value in how],
            min_score=min_score,
            max_overlap=max_overlap,
        )
        with replaced_folder(out, FIGURES, MADE_BY, {PAGE, FIGURES}) as aside:
            (aside / FIGURES).write_text(text, encoding="utf-8", newline="\n")
            (aside / PAGE).write_text(html, encoding="utf-8", newline="\n")
        typer.echo(f"page: {printable(str(out / PAGE))}")


def _folder(out: Path | None, run: Path, folders: list[Path]) -> Path:
    """The folder for page and figures, which may be made or replaced.

    Raises:
        ValueError: none is named, and RUN is no folder to put it into; or it is among the files of a data set.
        OSError: it holds something else, or cannot be made.
    """
    if out is None:
        if not run.is_dir():
            raise ValueError(f"{run} is no folder of a run: name a folder for the page with --out")
        out = run / "analysis"
    require_outside(out / PAGE, folders)
    require_replaceable(out, FIGURES, MADE_BY, {PAGE, FIGURES})
    return out


def in_text(analysis: Analysis, classes: tuple[str, ...], min_score: float, max_overlap: float) -> str:
    """What the screen shows: the table of kinds, the verdict and the advice."""
    counts = analysis.counts()
    width = max(map(len, TITLES.values()))
    rows = [f"{'kind':<{width}}   errors   mAP that it costs"]
    for kind, cost in analysis.costs.items():
        rows.append(f"{TITLES[kind]:<{width}}  {counts[kind]:7d}   {cost:.3f}")
    return "\n".join(
        [
            *rows,
            "",
            verdict(analysis, classes),
            *(f"- {line}" for line in advice(analysis, classes, min_score=min_score, max_overlap=max_overlap)),
        ]
    )
