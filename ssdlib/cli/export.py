"""`ssd export`: the network for other runtimes, compared with PyTorch before it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import ModelArgument, checkpoint_of, clear_errors, example, model_of, torch_device
from ssdlib.cli.outputs import require_writable, some_path
from ssdlib.data import load_image
from ssdlib.deploy.export import OUTPUTS, TARGETS, export_model, target_of
from ssdlib.deploy.inputs import files_in

app = typer.Typer()
MOST_IMAGES = 16


@app.command(
    "export",
    epilog=example(
        "ssd export runs/toy --out toy.pt2",
        "ssd export runs/toy --out toy.onnx --outputs nms --images photos",
        "ssd export runs/toy --to openvino --out toy.xml --half",
    ),
)
def export_command(
    run: ModelArgument,
    out: Annotated[
        Path,
        typer.Option(
            help="File to write: .onnx, .xml for OpenVINO (and a .bin beside it), else for PyTorch, by custom .pt2.",
            metavar="PATH",
            parser=some_path,
        ),
    ],
    to: Annotated[
        str | None, typer.Option(help=f"{', '.join(TARGETS)}; by default what the ending says.", metavar="TARGET")
    ] = None,
    outputs: Annotated[
        str, typer.Option(help=f"How far the arithmetic in the file goes: {', '.join(OUTPUTS)}.", metavar="WHAT")
    ] = "boxes",
    half: Annotated[bool, typer.Option("--half", help="Float16: half the size, results rounded to 3 digits.")] = False,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"Photographs to compare on, files or folders, at most {MOST_IMAGES}; by default drawn scenes.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Of the NMS in the file.")] = 0.05,
    max_overlap: Annotated[float, typer.Option(min=0, max=1, help="Of the NMS in the file.")] = 0.45,
) -> None:
    """Write the network as a file that runs without this package, after it gave the same as PyTorch on images.

    The file takes images (N, 3, S, S) of floats in 0..1, RGB (OpenCV reads BGR: turn it), for any N. It gives "raw"
    offsets (N, P, 4) and logits (N, P, C); or "boxes" (N, P, 4) xyxy in fractions of the image with scores (N, P, C),
    class 0 being background, which is what NMS needs; or "nms": a row for each object, of image, labels, boxes, scores.
    """
    with clear_errors():
        target = target_of(out, to)
        files = files_in(images or [])[:MOST_IMAGES]
        for file in [out, out.with_suffix(".bin")] if target == "openvino" else [out]:
            require_writable(file, [*files, checkpoint_of(run)])
        worst = export_model(
            model_of(run, torch_device("cpu")),
            out,
            to=to,
            outputs=outputs,
            half=half,
            images=[load_image(file) for file in files],
            min_score=min_score,
            max_overlap=max_overlap,
        )
    typer.echo(f"program: {out}, at most {worst:.1g} from PyTorch on {len(files) or 'drawn'} images")
