"""`ssd detect` and `ssd export`: use a trained detector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ssdlib import plotting
from ssdlib.checkpoint import export_model, load_model
from ssdlib.cli.common import DeviceOption, RunArgument, checkpoint_of, clear_errors, example, torch_device
from ssdlib.data import load_image

app = typer.Typer()


@app.command("detect", epilog=example("ssd detect runs/toy photo.jpg --out found.png --min-score 0.4"))
def detect_command(
    run: RunArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write; a folder for several images.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that is reported.")] = 0.5,
    device: DeviceOption = "auto",
) -> None:
    """Find objects in images: a line for each on the screen, as JSON, and pictures with boxes if OUT is given."""
    with clear_errors():
        if out is not None and len(images) > 1:
            out.mkdir(parents=True, exist_ok=True)
        model = load_model(checkpoint_of(run)).to(torch_device(device))
        for path in images:
            image = load_image(path)
            (found,) = model.predict([image], min_score=min_score)
            for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
                line = {"file": str(path), "class": model.classes[label - 1], "score": round(score, 4)}
                typer.echo(json.dumps({**line, "box": [round(edge, 1) for edge in box]}))
            if out is not None:
                picture = plotting.draw_on_image(plotting.to_pil(image), found, model.classes, min_score=min_score)
                picture.save(out / f"{path.stem}.png" if len(images) > 1 else out)


@app.command("export", epilog=example("ssd export runs/toy --out toy.pt2"))
def export_command(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="File to write, by custom with the ending .pt2.")],
) -> None:
    """Write the network as a program that PyTorch runs without this package.

    `torch.export.load("toy.pt2").module()` takes images (N, 3, S, S) of floats in 0..1 and gives boxes (N, P, 4) xyxy
    in fractions of the image and scores (N, P, C) after the softmax, class 0 being background: what NMS needs.
    """
    with clear_errors():
        export_model(load_model(checkpoint_of(run)), out)
    typer.echo(f"program: {out}")
