"""What `ssd bench` measures, of two detectors, in one record: latency and throughput of each runtime on this CPU.

    python benchmarks/latency.py --seconds 3 --in-flight 1 2 4

It wants a quiet machine: the record says how busy it was. It writes bench.json:

    load                [load average of the last minute before, and after]; 0 is a quiet machine
    processors          that this process may use
    models              one for each detector:
        detector        "ssd_tiny", the small one that comes with the package, or a name of `ssd models`
        input_size      side of its images, in pixels
        megabytes       {"float32": ..., "float16": ..., "int8": ...}: sizes of the file of ONNX
        timings         a row for each runtime and number of requests in flight: runtime (of
                        `ssdlib.deploy.bench.RUNTIMES`), batch, in_flight, threads (of each request), calls, min_ms,
                        median_ms, p99_ms (of one call), images_per_second
        whole           the same for all that a photograph costs, from its file to the picture with boxes

Requests share the processors: with two in flight on two processors each has one thread. The weights of the second are
fetched once, and it is left out where they cannot be had.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import RESULTS, circumstances, write_record

from ssdlib.cli.bench import drawing
from ssdlib.data import sample_root
from ssdlib.deploy.bench import HEAD, RUNTIMES, TORCH, available, bench, cores, from_file_to_picture, line
from ssdlib.deploy.export import check_batch, write_onnx
from ssdlib.deploy.int8 import quantize
from ssdlib.deploy.runtimes import ONNX, OPENVINO
from ssdlib.model import SSD
from ssdlib.zoo import demo_model, open_model

LARGE = "openimages:ssd300_mobilenet_v2"
PLAIN = (TORCH, ONNX, OPENVINO)  # of the whole way from file to picture


def sizes(model: SSD) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: Path(folder) / f"{kind}.onnx" for kind in ("float32", "float16", "int8")}
        write_onnx(model, files["float32"])
        write_onnx(model, files["float16"], half=True)
        quantize(files["float32"], files["int8"], [check_batch([], model.recipe.image_size)])
        return {kind: round(file.stat().st_size / 1e6, 2) for kind, file in files.items()}


def measure(name: str, model: SSD, asked: argparse.Namespace) -> dict[str, Any]:
    print(f"{name}\n{HEAD}", flush=True)
    timings = []
    for batch in asked.batch:
        timings += bench(
            model,
            runtimes=available(asked.runtimes),
            in_flight=asked.in_flight if batch == 1 else [1],
            batch=batch,
            seconds=asked.seconds,
            report=lambda timing: print(line(timing), flush=True),
        )
    print("from the file to the picture", flush=True)
    photographs = sorted((sample_root() / "JPEGImages").glob("*.jpg"))
    whole = bench(
        model,
        runtimes=available(name for name in asked.runtimes if name in PLAIN),
        in_flight=asked.in_flight,
        seconds=asked.seconds,
        report=lambda timing: print(line(timing), flush=True),
        around=from_file_to_picture(model, photographs, drawing(model)),
    )
    rows = {"timings": [timing.to_dict() for timing in timings], "whole": [timing.to_dict() for timing in whole]}
    return {"detector": name, "input_size": model.recipe.image_size, "megabytes": sizes(model), **rows}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], help="above 1: one request at a time")
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--small", action="store_true", help="only the small detector")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    flights = " ".join(map(str, asked.in_flight))
    command = f"python benchmarks/latency.py --seconds {asked.seconds:g} --in-flight {flights}"
    before = os.getloadavg()[0]
    models = {"ssd_tiny": demo_model()} | ({} if asked.small else {LARGE: open_model(LARGE)})
    rows = [measure(name, model, asked) for name, model in models.items()]
    load = [round(before, 2), round(os.getloadavg()[0], 2)]
    write_record(
        {"command": command, **circumstances(), "load": load, "processors": cores(), "models": rows}, "bench", asked.out
    )


if __name__ == "__main__":
    main()
