"""`ssd export`: the network for other runtimes, compared with PyTorch before it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ssdlib.cli.common import (
    ImageSetOption,
    ModelArgument,
    checkpoint_of,
    clear_errors,
    example,
    model_of,
    torch_device,
)
from ssdlib.cli.outputs import require_outside, require_writable, some_path
from ssdlib.data import load_image, open_dataset
from ssdlib.data.names import counted
from ssdlib.deploy.export import OUTPUTS, TARGETS, export_model, target_of
from ssdlib.deploy.inputs import files_in
from ssdlib.deploy.int8 import export_int8

app = typer.Typer()
MOST_IMAGES, MOST_CALIBRATION = 16, 300
PRECISIONS = ("float32", "float16", "int8")


@app.command(
    "export",
    epilog=example(
        "ssd export runs/toy --out toy.pt2",
        "ssd export runs/toy --out toy.onnx --outputs nms --images photos",
        "ssd export runs/toy --out toy.onnx --precision int8 --images photos --data data/toy",
        "ssd export runs/toy --to openvino --out toy.xml --precision float16",
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
    precision: Annotated[
        str,
        typer.Option(
            help="float32; float16: half the size, 3 digits; int8: a quarter, needs --images.", metavar="KIND"
        ),
    ] = "float32",
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help=f"Photographs to compare on, files or folders, at most {MOST_IMAGES}, by default drawn scenes; "
            f"for int8 to calibrate on, at most {MOST_CALIBRATION}.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="Labelled images, to measure int8's mAP before and after.", metavar="PATH", parser=some_path),
    ] = None,
    image_set: ImageSetOption = "test",
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Of the NMS in the file.")] = 0.05,
    max_overlap: Annotated[float, typer.Option(min=0, max=1, help="Of the NMS in the file.")] = 0.45,
) -> None:
    """Write the network as a file that runs without this package, after it gave the same as PyTorch on images.

    The file takes images (N, 3, S, S) of floats in 0..1, RGB (OpenCV reads BGR: turn it), for any N. It gives "raw"
    offsets (N, P, 4) and logits (N, P, C); or "boxes" (N, P, 4) xyxy in fractions of the image with scores (N, P, C),
    class 0 being background, which is what NMS needs; or "nms": a row for each object, of image, labels, boxes, scores.

    In int8 each number moves a little, so what is compared is what is found: the file is refused if it loses a tenth of
    what PyTorch finds in the photographs, or 0.02 of the mAP on the data that --data names.
    """
    with clear_errors():
        target = target_of(out, to)
        if precision not in PRECISIONS:
            raise ValueError(f"no precision {precision!r}; there are {', '.join(PRECISIONS)}")
        if data and precision != "int8":
            raise ValueError("--data is for --precision int8, whose mAP is measured")
        if precision == "int8" and not images:
            raise ValueError("int8 is calibrated on photographs such as will come later: name them with --images")
        files = spread(files_in(images or []), MOST_CALIBRATION if precision == "int8" else MOST_IMAGES)
        for file in [out, out.with_suffix(".bin")] if target == "openvino" else [out]:
            require_writable(file, [*files, checkpoint_of(run)])
            require_outside(file, data or [])
        model = model_of(run, torch_device("cpu"))
        options: dict[str, Any] = {"to": to, "outputs": outputs, "min_score": min_score, "max_overlap": max_overlap}
        photographs = (load_image(file) for file in files)
        if precision == "int8":
            labelled: Sequence[Any] = open_dataset(data, image_set, model.classes) if data else ()  # type: ignore[assignment]
            kept = export_int8(model, out, photographs, labelled=labelled, **options)
            typer.echo(f"program: {out}, calibrated on {counted(len(files), 'image')}")
            sure = counted(kept.sure, "sure object")
            typer.echo(f"of what PyTorch finds it keeps {kept.agreement:.3f} (mAP against its {sure})")
            if kept.before is not None:
                of_images = f"mAP@0.5 on {counted(len(labelled), 'image')}"
                typer.echo(f"{of_images}: {kept.before:.4f} in PyTorch, {kept.after:.4f} in int8")
            return
        worst = export_model(model, out, half=precision == "float16", images=list(photographs), **options)
    tried = counted(len(files), "image") if files else "drawn images"
    typer.echo(f"program: {out}, at most {worst:.1g} from PyTorch on {tried}")


def spread(files: Sequence[Path], most: int) -> list[Path]:
    """At most so many of the files, from the first to the last: the first hundred of a folder may be one afternoon."""
    count = min(most, len(files))
    return [files[i * len(files) // count] for i in range(count)]
