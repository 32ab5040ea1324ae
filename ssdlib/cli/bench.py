"""`ssd bench`: what an image costs in each runtime."""

from __future__ import annotations

import io
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from matplotlib.figure import Figure
from torch import Tensor

from ssdlib.cli.common import ModelArgument, checkpoint_of, clear_errors, example, model_of, torch_device
from ssdlib.cli.outputs import require_ending, require_writable, some_path
from ssdlib.data.files import replaced, write_text
from ssdlib.deploy.bench import (
    COMPILED,
    HEAD,
    RUNTIMES,
    Timing,
    available,
    bench,
    cores,
    crowded,
    from_file_to_picture,
    line,
)
from ssdlib.deploy.inputs import files_in
from ssdlib.detection import Detection
from ssdlib.model import SSD
from ssdlib.plotting import PALETTE, draw_on_image, to_pil

app = typer.Typer()
MARKERS = "osD^vPX"  # one for each of RUNTIMES: colours alone do not tell them apart


@app.command(
    "bench",
    epilog=example(
        "ssd bench runs/toy",
        "ssd bench runs/toy --in-flight 1,2,4 --threads 1 --json bench.json --plot bench.png",
        "ssd bench runs/toy --images photos --threads 1 --runtimes torch,openvino",
    ),
)
def bench_command(
    run: ModelArgument,
    runtimes: Annotated[
        str, typer.Option(help="Which are compared, of those that are installed.", metavar="NAMES")
    ] = ",".join(RUNTIMES),
    in_flight: Annotated[
        str, typer.Option(help="Requests at a time; 1 is one after the other.", metavar="NUMBERS")
    ] = "1,2",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each request; by default the processors, shared among the requests.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images of a request.")] = 1,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            help="Photographs, files or folders: time all of it, from the file to the picture with boxes.",
            metavar="PATH",
            parser=some_path,
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.01, help="For each line of the table.")] = 3.0,
    out: Annotated[
        Path | None, typer.Option("--json", help="File for the figures.", metavar="PATH", parser=some_path)
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Picture of latency against throughput.", metavar="PATH", parser=some_path)
    ] = None,
) -> None:
    """Time the network on the CPU: latency and images a second, in PyTorch, ONNX Runtime and OpenVINO.

    The network with its decoding of boxes is timed, on random images, without reading, NMS and drawing: those come in
    with --images, where one photograph is read or drawn while the network computes for another. Compiling takes a
    minute for each number of requests; it is not counted, nor is the first call of any.
    """
    with clear_errors():
        for file in (out, plot):
            if file is not None:
                require_writable(file, [checkpoint_of(run)])
        if plot is not None:
            require_ending(plot, {".png", ".svg", ".pdf", ".jpg"})
        try:
            counts = sorted({int(number) for number in in_flight.split(",")})
        except ValueError:
            raise ValueError(f"--in-flight takes numbers such as 1,2,4, got {in_flight!r}") from None
        if images and batch > 1:
            raise ValueError("--images are taken one at a time: without --batch")
        files = files_in(images) if images else []
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"no photograph at {file}")
        asked = [name.strip() for name in runtimes.split(",")]
        names = available(asked)
        for name in asked:
            if name not in names:
                needs = "a compiler of C++" if name == COMPILED else "pip install 'ssdlib[onnx,openvino]'"
                typer.secho(f"warning: {name} is left out: {needs}", fg="yellow", err=True)
        if not names:
            raise ValueError("none of these runtimes is installed")
        model = model_of(run, torch_device("cpu"))
        warning = crowded(counts, threads)
        if warning:
            typer.secho(f"warning: {warning}", fg="yellow", err=True)
        typer.echo(HEAD)
        timings = bench(
            model,
            runtimes=names,
            in_flight=counts,
            threads=threads,
            batch=batch,
            seconds=seconds,
            report=lambda timing: typer.echo(line(timing)),
            around=from_file_to_picture(model, files, drawing(model)) if files else None,
        )
        if out is not None:
            machine = {"machine": platform.machine(), "system": platform.system(), "processors": cores()}
            versions = {name: version(name) for name in sorted({name.partition("-")[0] for name in names})}
            rows = [timing.to_dict() for timing in timings]
            what = {"model": model.architecture, "photographs": len(files)}
            entries = {**what, **machine, "versions": versions, "timings": rows}
            write_text(out, json.dumps(entries, indent=1) + "\n")
        if plot is not None:
            with replaced(plot) as aside:
                draw(timings).savefig(aside)


def drawing(model: SSD) -> Callable[[Tensor, Detection], Any]:
    """Draws what was found, as `ssd detect --out` does, and writes the picture to nowhere."""

    def drawn(pixels: Tensor, found: Detection) -> None:
        draw_on_image(to_pil(pixels), found, model.classes, min_score=0).save(io.BytesIO(), "JPEG")

    return drawn


def draw(timings: list[Timing]) -> Figure:
    """Latency against throughput: a line for each runtime, a point for each number of requests in flight."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained", dpi=110)
    ax = figure.add_subplot()
    for number, name in enumerate(dict.fromkeys(timing.runtime for timing in timings)):
        own = [timing for timing in timings if timing.runtime == name]
        rates, medians = [t.images_per_second for t in own], [t.median_ms for t in own]
        ax.plot(rates, medians, marker=MARKERS[number], color=PALETTE[number % len(PALETTE)], label=name)
        for timing, rate, median in zip(own, rates, medians, strict=True):
            ax.annotate(str(timing.in_flight), (rate, median), textcoords="offset points", xytext=(5, 5), fontsize=8)
    ax.set(xlabel="images a second", ylabel="median latency, ms", xlim=(0, None), ylim=(0, None))
    ax.set_title("requests in flight beside each point", fontsize=9)
    ax.legend(frameon=False)
    return figure
