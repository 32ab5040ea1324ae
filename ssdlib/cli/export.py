"""`ssd export`: the network for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdlib.cli.common import ModelArgument, checkpoint_of, clear_errors, example, model_of, torch_device
from ssdlib.cli.outputs import require_writable, some_path
from ssdlib.zoo.checkpoint import export_model

app = typer.Typer()


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
