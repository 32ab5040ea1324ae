"""`ssd detect` and `ssd export`: use a trained detector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from ssdlib import plotting
from ssdlib.cli.common import (
    DeviceOption,
    ModelArgument,
    RunArgument,
    checkpoint_of,
    clear_errors,
    example,
    model_of,
    torch_device,
)
from ssdlib.data import load_image
from ssdlib.data.files import replaced
from ssdlib.zoo.checkpoint import export_model, load_model

app = typer.Typer()


@app.command(
    "detect",
    epilog=example(
        "ssd detect runs/toy photo.jpg --out found.png --min-score 0.4",
        "ssd detect torchvision:ssd300_vgg16 photo.jpg --out found.png",
    ),
)
def detect_command(
    run: ModelArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Annotated[Path | None, typer.Option(help="Picture to write; a folder for several images.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that is reported.")] = 0.5,
    device: DeviceOption = "auto",
) -> None:
    """Find objects in images: a line for each on the screen, as JSON, and pictures with boxes if OUT is given."""
    with clear_errors():
        model = model_of(run, torch_device(device))
        for path, name in zip(images, picture_names(images), strict=True):
            image = load_image(path)
            (found,) = model.predict([image], min_score=min_score)
            for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
                line = {"file": str(path), "class": model.classes[label - 1], "score": round(score, 4)}
                typer.echo(json.dumps({**line, "box": [round(edge, 1) for edge in box]}))
            if out is not None:
                picture = plotting.draw_on_image(plotting.to_pil(image), found, model.classes, min_score=min_score)
                with replaced(out / name if len(images) > 1 else out) as aside:
                    picture.save(aside)


def picture_names(images: Sequence[Path]) -> list[str]:
    """A name for the picture of each image: that of the image, with its folder or a number where several have the same.

    >>> picture_names([Path("a/1.jpg"), Path("b/1.jpg"), Path("b/2.jpg")])
    ['a_1.png', 'b_1.png', '2.png']
    """
    stems = [path.stem for path in images]
    names: list[str] = []
    for path in images:
        name = path.stem if stems.count(path.stem) == 1 else f"{path.absolute().parent.name}_{path.stem}"
        number, first = 1, name
        while f"{name}.png".lower() in (taken.lower() for taken in names):  # a disk may not tell A from a
            number += 1
            name = f"{first}_{number}"
        names.append(f"{name}.png")
    return names


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
