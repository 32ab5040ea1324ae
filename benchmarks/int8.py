"""What int8 loses and gains, by how many photographs it was calibrated on.

    python benchmarks/int8.py --data PATH/coco128

It writes int8.json:

    limits                      {"agreement": ..., "lost": ...}: what `ssd export` refuses
    rows                        one for each detector and number of photographs for the calibration:
        detector, calibration   "ssd_tiny" on drawn scenes, or a name of `ssd models` on photographs; how many images
        images                  others than those of the calibration, on which it was measured
        sure, agreement         objects that PyTorch finds in them with a score of 0.3, and the mAP of the file's
                                detections with these for the truth
        before, after           mAP@0.5 by the labels, in PyTorch and in int8; null for photographs, whose labels are of
                                other classes
        megabytes               {"float32": ..., "int8": ...}: sizes of the files of ONNX
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from record import RESULTS, circumstances, write_record

from ssdlib.data import VOCDataset, load_image, make_toy_voc
from ssdlib.deploy.export import write_onnx
from ssdlib.deploy.int8 import LEAST_AGREEMENT, MOST_LOST, Labelled, judge, quantize
from ssdlib.deploy.runtimes import onnx_runtime
from ssdlib.model import SSD, prepare
from ssdlib.zoo import demo_model, open_model

PHOTOGRAPHS = "openimages:ssd300_mobilenet_v2"


def rows(
    name: str,
    model: SSD,
    calibration: Sequence[Any],
    images: Sequence[Any],
    labelled: Sequence[Labelled],
    counts: list[int],
) -> list[dict[str, Any]]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        exact, made = Path(folder) / "exact.onnx", Path(folder) / "int8.onnx"
        write_onnx(model, exact)
        for count in counts:
            batches = (prepare(image, model.recipe.image_size)[None].numpy() for image in calibration[:count])
            quantize(exact, made, batches)
            kept = judge(onnx_runtime(made), model, "boxes", images, labelled)
            sizes = {"float32": exact, "int8": made}
            found.append(
                {
                    "detector": name,
                    "calibration": count,
                    "images": len(images),
                    **{key: value if value is None else round(value, 4) for key, value in kept._asdict().items()},
                    "megabytes": {kind: round(path.stat().st_size / 1e6, 2) for kind, path in sizes.items()},
                }
            )
            print(found[-1], flush=True)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with photographs in images/train2017")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--scenes", type=int, default=100, help="drawn scenes to measure on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args(arguments)
    most = max(asked.counts)
    command = f"python benchmarks/int8.py --scenes {asked.scenes} --counts {' '.join(map(str, asked.counts))}"
    model = demo_model()
    with tempfile.TemporaryDirectory() as folder:
        root = make_toy_voc(Path(folder) / "toy", most, 0, asked.scenes, progress=False)
        train, test = (VOCDataset(root, name, classes=model.classes) for name in ("train", "test"))
        seen, labelled = [image for image, _ in train], list(test)
    found = rows("ssd_tiny", model, seen, [image for image, _ in labelled], labelled, asked.counts)
    if asked.data is not None:
        command += f" --data {asked.data.name}"
        photographs = [load_image(path) for path in sorted((asked.data / "images" / "train2017").iterdir())]
        found += rows(PHOTOGRAPHS, open_model(PHOTOGRAPHS), photographs[:most], photographs[most:], [], asked.counts)
    limits = {"agreement": LEAST_AGREEMENT, "lost": MOST_LOST}
    write_record({"command": command, **circumstances(), "limits": limits, "rows": found}, "int8", asked.out)


if __name__ == "__main__":
    main()
