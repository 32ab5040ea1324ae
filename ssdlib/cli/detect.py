"""`ssd detect`: find objects in photographs, in folders of them, in what fits a pattern, and in videos."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from ssdlib import plotting
from ssdlib.cli.common import (
    BatchSizeOption,
    DeviceOption,
    ModelArgument,
    checkpoint_of,
    clear_errors,
    example,
    model_of,
    plain,
    printable,
    torch_device,
)
from ssdlib.cli.outputs import picture_names, require_ending, require_writable, rows_to, some_path
from ssdlib.cli.video import detect_in_video, video_path
from ssdlib.data.files import replaced
from ssdlib.data.names import counted
from ssdlib.deploy import Detector, Found
from ssdlib.deploy.inputs import VIDEOS, files_in
from ssdlib.deploy.video import is_stream

app = typer.Typer()

COLUMNS = ("file", "class", "score", "box")

ClassesOption = Annotated[str | None, typer.Option(help='Only these classes, such as "cat,dog".', metavar="NAMES")]
WithoutOption = Annotated[str | None, typer.Option(help="Not these classes.", metavar="NAMES")]
MinScoreOption = Annotated[float, typer.Option(min=0, max=1, help="Least score that is reported.")]
MaxOverlapOption = Annotated[float, typer.Option(min=0, max=1, help="Most IoU of two objects of one class.")]
TopKOption = Annotated[int, typer.Option(min=1, help="Most objects an image, the best ones.")]
TilesOption = Annotated[
    int | None,
    typer.Option(min=16, help="Look through windows of so many pixels too, for small objects.", metavar="PIXELS"),
]


class Outputs(NamedTuple):
    """Where the results of each image go; nowhere where it is None."""

    pictures: Sequence[Path | None]
    crops: Sequence[Path | None]  # the beginning of the names of its crops


@app.command(
    "detect",
    epilog=example(
        "ssd detect runs/toy photo.jpg --out found.png --min-score 0.4",
        'ssd detect runs/toy photos "more/**/*.jpg" --out found --csv found.csv --classes ball,star',
        "ssd detect torchvision:ssd300_vgg16 street.jpg --out found.png --tiles 600",
        "ssd detect runs/toy clip.mp4 --out found.mp4 --csv found.csv",
    ),
)
def detect_command(
    run: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            help='Images, folders, patterns; or a video, "-" for a piped one, "camera:0" for a camera.',
            metavar="IMAGES",
            parser=some_path,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Picture to write; a folder for several images.", metavar="PATH", parser=some_path),
    ] = None,
    show: Annotated[bool, typer.Option("--show/--no-show", help="Open OUT in a viewer when it is written.")] = False,
    min_score: MinScoreOption = 0.5,
    max_overlap: MaxOverlapOption = 0.45,
    top_k: TopKOption = 200,
    classes: ClassesOption = None,
    without: WithoutOption = None,
    tiles: TilesOption = None,
    crop: Annotated[
        Path | None, typer.Option(help="Folder for a picture of each object.", metavar="PATH", parser=some_path)
    ] = None,
    lines: Annotated[
        Path | None,
        typer.Option("--json", help="File for the lines, instead of the screen.", metavar="PATH", parser=some_path),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Table to write: a row for each object.", metavar="PATH", parser=some_path)
    ] = None,
    batch_size: BatchSizeOption = 8,
    device: DeviceOption = "auto",
) -> None:
    """Find objects in images: a line for each on the screen, as JSON, and pictures with boxes if OUT is given.

    Of a folder, its photographs are taken. Images that cannot be read are listed at the end; then the exit status is 1.
    A video is looked at frame by frame, and written with boxes and without sound. Ctrl-C ends a camera.
    """
    unreadable: list[str] = []
    with clear_errors():
        if show and out is None:
            raise ValueError("--show opens what is written: say with --out where")
        files = files_in(images)
        checkpoint = checkpoint_of(run)
        clip = files[0] if is_video(files[0]) else None
        if any(is_video(file) for file in files) and (len(files) > 1 or crop is not None):
            raise ValueError("a video is given by itself, without other files and without --crop")
        for table in (lines, csv):
            if table is not None:
                require_writable(table, [*files, checkpoint])
        if lines is not None and csv is not None and lines.absolute() == csv.absolute():
            raise ValueError(f"{lines} cannot hold both the lines and the table")
        drawn = video_path(clip, out, checkpoint) if clip else None
        outputs = Outputs(
            [None] * len(files) if out is None or clip else picture_paths(files, out, checkpoint),
            [None] * len(files) if crop is None else crop_paths(files, crop),
        )
        detector = Detector(
            model_of(run, torch_device(device)),
            min_score=min_score,
            max_overlap=max_overlap,
            top_k=top_k,
            classes=names_in(classes),
            without=names_in(without) or (),
            tiles=tiles,
        )
        if clip is not None:
            problem = detect_in_video(detector, clip, drawn, lines, csv, batch_size)
            if problem:
                typer.secho(f"error: {printable(problem)}", fg="red", err=True)
                raise typer.Exit(1)
            open_in_viewer(drawn if show else None)
            return
        started = time.perf_counter()
        with rows_to(lines, csv, COLUMNS) as write:
            progress = tqdm(files, "detecting", unit=" images", leave=False, disable=None if len(files) > 1 else True)
            for path, result, picture, crops in zip(files, detector.each(progress, batch_size), *outputs, strict=True):
                if result.error is not None:
                    unreadable.append(plain(result.error))
                    continue
                assert result.found is not None
                assert result.pixels is not None
                write([{"file": str(path), **row} for row in result.found.rows()])
                write_pictures(result.pixels, result.found, picture, crops)
    if len(files) > 1:
        seconds = time.perf_counter() - started
        typer.echo(f"{len(files)} images in {seconds:.1f} s: {len(files) / seconds:.1f} images/s", err=True)
    open_in_viewer(out if show else None)
    if unreadable:
        typer.secho(f"error: {len(unreadable)} of {counted(len(files), 'image')} cannot be read:", fg="red", err=True)
        typer.echo("\n".join(f"  {message}" for message in unreadable), err=True)
        raise typer.Exit(1)


def open_in_viewer(path: Path | None) -> None:
    """Show a file or a folder in the program that the system has for it; a note where there is none."""
    if path is not None and path.exists() and typer.launch(str(path)) != 0:
        typer.secho(f"there is no program here to show {printable(str(path))}", fg="yellow", err=True)


def is_video(path: Path) -> bool:
    """Whether a path names a video, a camera, or what is piped in."""
    return path.suffix.lower() in VIDEOS or is_stream(path)


def names_in(text: str | None) -> list[str] | None:
    """The names of a list with commas."""
    return None if text is None else [name.strip() for name in text.split(",")]


def write_pictures(pixels: Tensor, found: Found, picture: Path | None, crops: Path | None) -> None:
    """Write the picture with boxes, and a picture of each object, named by its number and class."""
    if picture is None and crops is None:
        return
    image = plotting.to_pil(pixels)
    if picture is not None:
        with replaced(picture) as aside:
            plotting.draw_on_image(image, found.detection, found.classes, min_score=0).save(aside)
    if crops is not None:
        for number, (name, box) in enumerate(zip(found.names, found.boxes.tolist(), strict=True)):
            left, top = math.floor(box[0]), math.floor(box[1])
            edges = (left, top, max(left + 1, math.ceil(box[2])), max(top + 1, math.ceil(box[3])))
            word = "".join(c if c.isalnum() else "_" for c in name)[:40]
            with replaced(crops.with_name(f"{crops.name}_{number:03d}_{word}.png")) as aside:
                image.crop(edges).save(aside)


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
    beside = _is_beside(out, images)
    for picture in pictures:
        require_writable(picture, [*images, checkpoint] if beside or picture.exists() else [])
        if beside and os.path.lexists(picture):
            raise ValueError(f"{picture} is there already, beside the images: choose another folder than theirs")
    return pictures


def crop_paths(images: Sequence[Path], folder: Path) -> list[Path]:
    """How the names of the crops of each image begin.

    Raises:
        ValueError: if the folder is that of an image.
        OSError: if nothing can be written there.
    """
    require_writable(folder / "crop.png")
    if _is_beside(folder, images):
        raise ValueError(f"{folder} holds the images: choose another folder for the crops")
    return [folder / Path(name).stem for name in picture_names(images)]


def _is_beside(folder: Path, images: Sequence[Path]) -> bool:
    return folder.exists() and any(each.exists() and each.samefile(folder) for each in {i.parent for i in images})
