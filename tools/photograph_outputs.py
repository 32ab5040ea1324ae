"""Record what the SSD of Open Images says of the sample photographs, for the chapters (`ssdlib.zoo.photographs`).

    PYTHONPATH=. python tools/photograph_outputs.py

It needs the weights, which come with npm. A test compares the file with what they give.
"""

from __future__ import annotations

import json
from importlib.metadata import version

import torch
from safetensors.torch import save_file

from ssdlib.data.files import replaced
from ssdlib.model import prepare
from ssdlib.zoo.openimages import CLASSES, MODEL_SHA256, PACKAGE, VERSION, openimages_model
from ssdlib.zoo.photographs import OUTPUTS, PHOTOGRAPHS, photograph_pixels


def main() -> None:
    model = openimages_model()
    tensors = {}
    for name in PHOTOGRAPHS:
        with torch.no_grad():
            offsets, logits = model(prepare(photograph_pixels(name), model.recipe.image_size)[None])
        tensors |= {f"{name}.offsets": offsets[0].half(), f"{name}.logits": logits[0].half()}
    origin = {
        "classes": json.dumps(CLASSES),
        "package": f"npm {PACKAGE} {VERSION}",
        "model_sha256": MODEL_SHA256,
        "network": f"ssdlib.zoo.openimages on PyTorch {version('torch')}, images stretched by ssdlib.model.prepare",
        "photographs": f"skimage.data of scikit-image {version('scikit-image')}, sample data of matplotlib "
        + version("matplotlib"),
        "command": "python tools/photograph_outputs.py",
    }
    with replaced(OUTPUTS) as path:
        save_file(tensors, path, metadata=origin)
    print(f"recorded in {OUTPUTS}")


if __name__ == "__main__":
    main()
