"""`ssd data`: make, download and check data sets."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import clear_errors, example, printable
from ssdlib.cli.outputs import some_path
from ssdlib.data import check_dataset, make_toy_voc
from ssdlib.data.download import VOC_ARCHIVES, download_voc

app = typer.Typer(help="Make, download and check data sets.", no_args_is_help=True)

Part = Enum("Part", {name: name for name in VOC_ARCHIVES}, type=str)  # type: ignore[misc]


@app.command(epilog=example("ssd data toy data/toy", "ssd data toy data/other --train 500 --seed 1"))
def toy(
    root: Annotated[
        Path, typer.Argument(help="Folder to make; it must not hold anything else.", metavar="ROOT", parser=some_path)
    ],
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 2500,
    val: Annotated[int, typer.Option(min=0, help="Validation images.")] = 100,
    test: Annotated[int, typer.Option(min=0, help="Test images.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw a synthetic data set: six kinds of objects among clutter, in the VOC layout, without any download."""
    with clear_errors():
        made = make_toy_voc(root, train=train, val=val, test=test, seed=seed)
    typer.echo(f"{train} training, {val} validation and {test} test images in {made}")


@app.command(epilog=example("ssd data voc --root data", "ssd data voc --root data --part 2007-test"))
def voc(
    root: Annotated[
        Path, typer.Option(help="Folder for the folders VOC2007 and VOC2012.", metavar="PATH", parser=some_path)
    ],
    part: Annotated[list[Part] | None, typer.Option(help="Only this part; can be given more than once.")] = None,
    url: Annotated[str | None, typer.Option(help="Folder of a mirror that has the archives.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives in ROOT/downloads when unpacked.")] = False,
) -> None:
    """Download PASCAL VOC 2007 (trainval and test) and 2012 (trainval), 2.9 GB, and unpack them.

    What is there is skipped, and a download that was cut off goes on where it stopped: after any trouble, run it again.
    """
    with clear_errors():
        chosen = VOC_ARCHIVES if part is None else [item.value for item in part]
        folders = download_voc(root, [VOC_ARCHIVES[name] for name in chosen], mirror=url, keep=keep)
    for folder in folders:
        typer.echo(f"complete: {folder}")


@app.command(epilog=example("ssd data check data/toy"))
def check(
    root: Annotated[
        Path, typer.Argument(help="Folder in the VOC or the COCO layout.", metavar="ROOT", parser=some_path)
    ],
) -> None:
    """Read every annotation and every image; report sizes, classes and all that is wrong.

    The exit status is 1 when an object was refused, or a file is missing or unreadable.
    """
    with clear_errors():
        report = check_dataset(root)
    typer.echo(printable(report.text()))
    if not report.ok:
        raise typer.Exit(1)
