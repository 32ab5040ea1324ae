"""What the commands share: options with one meaning, clear errors, and where a run keeps its files."""

from __future__ import annotations

import os
import platform
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import torch
import torchvision
import typer

import ssdlib
from ssdlib.cli.outputs import some_path
from ssdlib.data import DataWarning
from ssdlib.engine import run_folder
from ssdlib.engine.validation import OverlapWarning
from ssdlib.model import SSD
from ssdlib.zoo import open_model, read_description
from ssdlib.zoo.checkpoint import weights_in
from ssdlib.zoo.description import is_number

ModelArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        parser=some_path,
        help="Folder of a run, a checkpoint (.safetensors), or a detector of `ssd models`, by its name.",
    ),
]
DataOption = Annotated[
    list[Path] | None,
    typer.Option(
        help="Folder with images and annotations; several are taken as one. By default that of the run.",
        metavar="PATH",
        parser=some_path,
    ),
]
ImageSetOption = Annotated[str, typer.Option(help="Name of the image set.")]
MinScoreOption = Annotated[float, typer.Option(min=0, max=1, help="Least score of a detection.")]
MaxOverlapOption = Annotated[float, typer.Option(min=0, max=1, help="Of two detections of a class (NMS).")]
TopKOption = Annotated[int, typer.Option(min=1, help="Most detections of an image.")]
BatchSizeOption = Annotated[int, typer.Option(min=1, help="Images at a time.")]
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
                    text = printable(str(message).split(";")[0])
                    where_more = "" if issubclass(category, OverlapWarning) else "; `ssd data check` lists them"
                    typer.secho(f"warning: {text}{where_more}", fg="yellow", err=True)
                else:
                    usual(message, category, *where, **more)

            warnings.showwarning = show
            yield
    except BrokenPipeError:
        raise  # whoever reads the output, such as `head`, has enough: typer ends the program quietly
    except (OSError, ValueError, FloatingPointError) as error:
        typer.secho(f"error: {plain(error)}", fg="red", err=True)
        raise typer.Exit(2) from None


def plain(error: Exception) -> str:
    """What an error says, without the stack trace that a process which loads images puts before it."""
    text = str(error)
    if "in DataLoader worker process" in text:
        *_, last = re.finditer(r"^[\w.]+(?:: |$)", text, re.MULTILINE)  # the last line that begins with an error's name
        text = text[last.end() :].rstrip() or last[0]
    return printable(text)


def printable(text: str) -> str:
    """The text with control characters as Python writes them: from a name in a file they could steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def torch_device(name: str) -> torch.device:
    """The device of that name, or of "auto"; ValueError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun: each process of a machine has a GPU of its own
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a name can be right and the device not there, or compute nothing: meta
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def worker_count(given: int | None, device: str) -> int:
    """How many processes load images: as given, or as fits the device."""
    return given if given is not None else 0 if torch_device(device).type == "cpu" else 4


def checkpoint_of(run: Path) -> Path:
    """The file with the weights: of a run's folder the best of its validations, else the last; or the file itself.

    Raises:
        FileNotFoundError: if the run in the folder has written neither.
    """
    if not run.is_dir():
        return run
    weights = weights_in(run)
    if not weights.exists() and (run / run_folder.CONFIG).exists():
        raise FileNotFoundError(
            f"the run in {run} has no weights to use yet: {run_folder.MODEL} comes at its end, and {run_folder.BEST} "
            f"with the first validation, if it has validation images (--val-data)"
        )
    return weights


def weights_note(run: Path) -> str:
    """Which weights `checkpoint_of` takes of a run's folder, and what they reached; empty for anything else."""
    path = checkpoint_of(run)
    if not run.is_dir():
        return ""
    if path.name != run_folder.BEST:
        return f"weights: {path.name}, the last of the run"
    training = read_description(path)["training"]
    step, score = (training.get(name) if isinstance(training, dict) else None for name in ("step", "mAP"))
    if not is_number(step) or not is_number(score):
        return f"weights: {path.name}"
    return f"weights: {path.name}, of step {step:g}, mAP {score:.3f} in the validation"


def model_of(run: Path, device: torch.device) -> SSD:
    """The detector of a run, of a checkpoint, or of the zoo."""
    return open_model(checkpoint_of(run)).to(device)


def data_of(run: Path) -> list[Path]:
    """The folders that a run was trained on, from its config.json."""
    if not (run / run_folder.CONFIG).is_file():
        raise ValueError(f"{run} does not say which data it is for: name it with --data")
    folders = run_folder.recorded_config(run)[1].get("data")
    if not folders:
        raise ValueError(f"{run / run_folder.CONFIG} does not say which data it is for: name it with --data")
    return [Path(folder) for folder in folders]


def provenance(run: Path, model: SSD, folders: Sequence[Path]) -> dict[str, Any]:
    """What figures in a JSON file depend on, besides options: detector, data, date and versions."""
    return {
        "model": {
            "file": str(run),
            "architecture": model.architecture,
            "recipe": model.recipe.name,
            "classes": list(model.classes),
        },
        "data": [str(folder) for folder in folders],
        "date": date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "ssdlib": ssdlib.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
    }
