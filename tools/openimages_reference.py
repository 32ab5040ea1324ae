"""Ask the original runtime what the SSD of Open Images says of four photographs, and keep it for the tests.

    pip install ai-edge-litert safetensors scikit-image matplotlib
    PYTHONPATH=.:tests python tools/openimages_reference.py mediapipe-objectron-0.4.1675468480.tgz

It needs none of our network. Of the 1917 priors of each photograph the file keeps the 40 with the highest scores, and
every 32nd one: their raw box encodings, in the order of the runtime (y, x, h, w), and their class predictions.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from ai_edge_litert.interpreter import Interpreter
from safetensors.torch import save_file
from support.photographs import nearest_pixels

from ssdlib.zoo.openimages import MODEL_SHA256, PACKAGE, VERSION, read_assets
from ssdlib.zoo.photographs import PHOTOGRAPHS, photograph_pixels

TARGET = Path(__file__).resolve().parent.parent / "tests" / "zoo" / "openimages_reference.safetensors"


def main(package: str) -> None:
    interpreter = Interpreter(model_content=read_assets(Path(package))[184:], num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    outputs = {detail["name"].split("/")[-1]: detail["index"] for detail in interpreter.get_output_details()}
    tensors = {}
    for name in PHOTOGRAPHS:
        image = nearest_pixels(photograph_pixels(name), 300)
        interpreter.set_tensor(entry["index"], (2 * image - 1).permute(1, 2, 0)[None].contiguous().numpy())
        interpreter.invoke()
        boxes, scores = (
            torch.tensor(interpreter.get_tensor(outputs[key]))[0] for key in ("box_encodings", "class_predictions")
        )
        best = scores[:, 1:].amax(dim=1).topk(40).indices
        rows = torch.cat((best, torch.arange(0, 1917, 32))).unique()
        tensors |= {f"{name}.rows": rows, f"{name}.boxes": boxes[rows], f"{name}.scores": scores[rows]}
    origin = {
        "package": f"npm {PACKAGE} {VERSION}",
        "model_sha256": MODEL_SHA256,
        "runtime": f"ai-edge-litert {version('ai-edge-litert')}, XNNPACK, one thread",
        "photographs": f"skimage.data of scikit-image {version('scikit-image')}, sample data of matplotlib",
        "command": "python tools/openimages_reference.py",
    }
    save_file(tensors, TARGET, metadata=origin)


if __name__ == "__main__":
    main(sys.argv[1])
