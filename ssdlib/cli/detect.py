"""`ssd detect` and `ssd export`: use a trained detector."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from ssdlib import plotting
from ssdlib.cli.common import (
    DeviceOption,
    ModelArgument,
    checkpoint_of,
    clear_errors,
    example,
    model_of,
    plain,
    torch_device,
)
from ssdlib.cli.outputs import require_ending, require_writable, some_path
from ssdlib.data import load_image
from ssdlib.data.files import replaced
from ssdlib.detection import Detection
from ssdlib.zoo.checkpoint import export_model

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
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGES", parser=some_path)],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture to write; a folder for several images.", metavar="PATH", parser=some_path),
    ] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score that is reported.")] = 0.5,
    device: DeviceOption = "auto",
) -> None:
    """Find objects in images: a line for each on the screen, as JSON, and pictures with boxes if OUT is given.

    Images that cannot be read are listed at the end; then the exit status is 1.
    """
    unreadable: list[str] = []
    with clear_errors():
        pictures = [None] * len(images) if out is None else picture_paths(images, out, checkpoint_of(run))
        model = model_of(run, torch_device(device))
        for path, picture in zip(images, pictures, strict=True):
            try:
                image = load_image(path)
            except (OSError, ValueError) as error:
                unreadable.append(plain(error))
                continue
            (found,) = model.predict([image], min_score=min_score)
            for line in lines_of(path, found, model.classes):
                typer.echo(line)
            if picture is not None:
                drawn = plotting.draw_on_image(plotting.to_pil(image), found, model.classes, min_score=min_score)
                with replaced(picture) as aside:
                    drawn.save(aside)
    if unreadable:
        typer.secho(f"error: {len(unreadable)} of {len(images)} images cannot be read:", fg="red", err=True)
        typer.echo("\n".join(f"  {message}" for message in unreadable), err=True)
        raise typer.Exit(1)


def lines_of(path: Path, found: Detection, classes: Sequence[str]) -> Iterable[str]:
    """A line of JSON for each object that was found in an image."""
    for box, label, score in zip(*(found[key].tolist() for key in ("boxes", "labels", "scores")), strict=True):
        line = {"file": str(path), "class": classes[label - 1], "score": round(score, 4)}
        yield json.dumps({**line, "box": [round(edge, 1) for edge in box]})


def picture_paths(images: Sequence[Path], out: Path, checkpoint: Path) -> list[Path]:
    """Where the picture of each image is written: to `out`, or into it if it is a folder or there are several.

    Raises:
        ValueError: if a picture would replace an image, the checkpoint or a file of a run, or a file beside the images
            whose name was not given; or if the name in `out` is that of no picture, or that of one for several.
        OSError: if a picture cannot be written.
    """
    Image.init()
    endings = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.SAVE}
    if len(images) == 1 and not out.is_dir():
        require_ending(out, endings)
        require_writable(out, [*images, checkpoint])
        return [out]
    if out.is_file() or (out.suffix.lower() in endings and not out.is_dir()):
        raise ValueError(f"{out} is the name of one picture, and there are {len(images)} images: name a folder")
    pictures = [out / name for name in picture_names(images)]
    beside = any(image.parent.exists() and out.exists() and image.parent.samefile(out) for image in images)
    for picture in pictures:
        require_writable(picture, [*images, checkpoint])
        if beside and os.path.lexists(picture):
            raise ValueError(f"{picture} is there already, beside the images: choose another folder than theirs")
    return pictures


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
    run: ModelArgument,
    out: Annotated[
        Path,
        typer.Option(help="File to write, by custom with the ending .pt2.", metavar="PATH", parser=some_path),
    ],
) -> None:
    """Write the network as a program that PyTorch runs without this package.

    `torch.export.load("toy.pt2").module()` takes images (N, 3, S, S) of floats in 0..1 and gives boxes (N, P, 4) xyxy
    in fractions of the image and scores (N, P, C) after the softmax, class 0 being background: what NMS needs.
    """
    with clear_errors():
        require_writable(out, [checkpoint_of(run)])
        export_model(model_of(run, torch_device("cpu")), out)
    typer.echo(f"program: {out}")
