"""`ssd models`: which published weights there are, and fetching them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import clear_errors, example
from ssdlib.cli.outputs import some_path
from ssdlib.zoo.models import ZOO, ZooModel, open_model, zoo_model
from ssdlib.zoo.openimages import openimages_model

app = typer.Typer()
_COLUMNS = ("NAME", "NETWORK", "CLASSES", "INPUT", "PARAMETERS", "FETCHED", "TRAINED ON")


@app.command(
    "models",
    epilog=example(
        "ssd models",
        "ssd models openimages:ssd300_mobilenet_v2",
        "ssd models openimages:ssd300_mobilenet_v2 --get",
        "ssd models openimages:ssd300_mobilenet_v2 --source mediapipe-objectron-0.4.1675468480.tgz",
    ),
)
def models_command(
    name: Annotated[str | None, typer.Argument(help="Of one of them: all that is known.", metavar="NAME")] = None,
    get: Annotated[
        bool, typer.Option("--get", help="Fetch a detector's weights now, for use without a network.")
    ] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            help="The package of openimages, or its folder, fetched elsewhere.", metavar="PATH", parser=some_path
        ),
    ] = None,
) -> None:
    """List the weights that others published and that the commands take by name, in place of a run.

    Detectors go to detect, evaluate and export. Backbones, imagenet:..., are what a training starts from.
    """
    if name is None and not get and source is None:
        typer.echo(_table())
        return
    with clear_errors():
        if name is None:
            raise ValueError("--get and --source need the NAME of a detector")
        entry = zoo_model(name)
        if source is not None:
            if not name.startswith("openimages:"):
                raise ValueError(f"--source is for openimages; torchvision keeps the file of {name} by itself")
            openimages_model(source)
        elif get:
            open_model(name)
    typer.echo(_details(entry))


def _table() -> str:
    rows = [_COLUMNS, *(_row(entry) for entry in ZOO.values())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(entry: ZooModel) -> tuple[str, ...]:
    named = [name for name in entry.classes if not name.startswith("N/A")]  # COCO leaves ten labels out
    classes = str(len(named)) if entry.is_detector else "backbone"
    millions, size = f"{entry.parameters / 1e6:.1f} M", f"{entry.megabytes:.0f} MB"
    return entry.name, entry.architecture, classes, f"{entry.input_size}", millions, size, entry.trained_on


def _details(entry: ZooModel) -> str:
    lines = {
        "name": entry.name,
        "network": f"{entry.architecture}, {entry.parameters:,} parameters, images of {entry.input_size} pixels",
        "classes": ", ".join(entry.classes) or "none: a backbone, with pretrained=true of `ssd train`",
        "trained on": entry.trained_on,
        "licence": entry.licence,
        "origin": f"{entry.origin} ({entry.megabytes:.0f} MB)",
        "checked": entry.checked,
    }
    return "\n".join(f"{key + ':':12}{value}" for key, value in lines.items())
