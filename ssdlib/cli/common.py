"""What the commands share: options with one meaning, clear errors, and where a run keeps its files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ssdlib.data import DataWarning
from ssdlib.model import SSD
from ssdlib.zoo import from_torchvision
from ssdlib.zoo.checkpoint import load_model

RunArgument = Annotated[Path, typer.Argument(help="Folder of a run, or a checkpoint (.safetensors).")]
ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Folder of a run, a checkpoint (.safetensors), or torchvision:ssd300_vgg16 for COCO's classes.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help='"cpu", "cuda", "cuda:1", "mps"; "auto" takes a GPU if there is one.')]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that load images; by default 0 on a CPU, which is busy, and else 4."),
]
ThreadsOption = Annotated[int, typer.Option(min=0, help="CPU threads of the network; 0 leaves the choice to PyTorch.")]


def example(*commands: str) -> str:
    """The end of a --help page."""
    return "Example:\n\n" + "\n\n".join(f"    {command}" for command in commands)


@contextmanager
def clear_errors() -> Iterator[None]:
    """Problems with files, data and arguments are messages for the user, not stack traces; other errors are bugs.

    What a data set repaired or refused is a line on stderr, without the line of source that a warning has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", DataWarning)
            usual = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                if issubclass(category, DataWarning):
                    typer.secho(
                        f"warning: {str(message).split(';')[0]}; `ssd data check` lists them", fg="yellow", err=True
                    )
                else:
                    usual(message, category, *where, **more)

            warnings.showwarning = show
            yield
    except BrokenPipeError:
        raise  # whoever reads the output, such as `head`, has enough: typer ends the program quietly
    except (OSError, ValueError, FloatingPointError) as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise typer.Exit(2) from None


def torch_device(name: str) -> torch.device:
    """The device of that name, or of "auto"; ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun: each process of a machine has a GPU of its own
    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a name can be right and the device not there
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def worker_count(given: int | None, device: str) -> int:
    """How many processes load images: as given, or as fits the device."""
    return given if given is not None else 0 if torch_device(device).type == "cpu" else 4


def checkpoint_of(run: Path) -> Path:
    """The file with the weights: of a run's folder, or the file itself."""
    return run / "model.safetensors" if run.is_dir() else run


def model_of(run: Path, device: torch.device) -> SSD:
    """The detector of a run, of a checkpoint, or, for "torchvision:NAME", torchvision's with its weights for COCO."""
    kind, colon, name = str(run).partition(":")
    model = from_torchvision(name) if kind == "torchvision" and colon else load_model(checkpoint_of(run))
    return model.to(device)


def data_of(run: Path) -> list[Path]:
    """The folders that a run was trained on, from its config.json."""
    config = run / "config.json"
    if not config.is_file():
        raise ValueError(f"{run} does not say which data it is for: name it with --data")
    folders = json.loads(config.read_text())["data"]
    return [Path(folder) for folder in ([folders] if isinstance(folders, str) else folders)]
