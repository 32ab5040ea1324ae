"""`ssd data`: make and check data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import clear_errors, example
from ssdlib.data import check_voc, make_toy_voc

app = typer.Typer(help="Make and check data sets in the VOC layout.", no_args_is_help=True)


@app.command(epilog=example("ssd data toy data/toy", "ssd data toy data/other --train 500 --seed 1"))
def toy(
    root: Annotated[Path, typer.Argument(help="Folder to make; it must not hold anything else.")],
    train: Annotated[int, typer.Option(min=0, help="Training images.")] = 2500,
    val: Annotated[int, typer.Option(min=0, help="Validation images.")] = 100,
    test: Annotated[int, typer.Option(min=0, help="Test images.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same scenes.")] = 0,
) -> None:
    """Draw a synthetic data set: six kinds of objects among clutter, in the VOC layout, without any download."""
    with clear_errors():
        made = make_toy_voc(root, train=train, val=val, test=test, seed=seed)
    typer.echo(f"{train} training, {val} validation and {test} test images in {made}")


@app.command(epilog=example("ssd data check data/toy"))
def check(root: Annotated[Path, typer.Argument(help="Folder in the VOC layout.")]) -> None:
    """Read every annotation and every image; report sizes, classes and all that is wrong.

    The exit status is 1 when an object was refused, or a file is missing or unreadable.
    """
    with clear_errors():
        report = check_voc(root)
    typer.echo(report.text())
    if not report.ok:
        raise typer.Exit(1)
