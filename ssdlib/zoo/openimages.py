"""An SSD of everyday objects, trained on Open Images: fetched with npm, checked, and brought into our form.

The npm package `@mediapipe/objectron` carries a TensorFlow Lite model, SSD on MobileNetV2 at 300 pixels, with 23
classes of Open Images V4. The package is a container for us: one file is read from it, and nothing of it is installed
or run.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ssdlib.model import SSD, ssd300_mobilenet_v2
from ssdlib.zoo.checkpoint import load_model, misfits, save_model
from ssdlib.zoo.npm import pack, read_members, require_sum, tarball_name
from ssdlib.zoo.tflite import float16_constants

PACKAGE, VERSION = "@mediapipe/objectron", "0.4.1675468480"
TARBALL = tarball_name(PACKAGE, VERSION)
TARBALL_SHA256 = "fc3e37b326b05e8f596099c90b3e0931b05a56cd3160b9ac450b621794bac94c"
ASSETS = "objectron_solution_packed_assets.data"  # the labels, one a line, and after them the model
_LABEL_BYTES, _ASSETS_BYTES = 184, 9_987_912
MODEL_SHA256 = (
    "d0a5255bf8c4f5a0bc4240741a76c41d5e939f7655078f945f50ab53a9375da6"  # also pinned in MediaPipe's WORKSPACE
)
_LARGEST = 40_000_000  # bytes of a tarball that is looked at

CLASSES = (
    *("Bicycle", "Boot", "Laptop", "Person", "Chair", "Cattle", "Desk", "Cat", "Computer mouse", "Computer monitor"),
    *("Box", "Mug", "Coffee cup", "Stationary bicycle", "Table", "Bottle", "High heels", "Vehicle", "Footwear", "Dog"),
    *("Book", "Camera", "Car"),
)
"""Labels 1 to 23. They overlap: a car is also a vehicle, and each class has a score of its own."""


def openimages_model(source: str | Path | None = None, *, progress: bool = True) -> SSD:
    """The detector, from the user's cache; on first use the package is fetched with npm and converted.

    Args:
        source: where the package is already: its tarball, the file `ASSETS` of it, or a folder with one of them. What
            the cache holds is then made anew.
        progress: say on stderr what is fetched.

    Raises:
        OSError: if the package cannot be fetched; the message says what to do.
        ValueError: if a file has another content than the one that was checked.
    """
    cached = cached_file()
    if source is not None or not cached.is_file():
        with tempfile.TemporaryDirectory() as folder:
            package = Path(source) if source is not None else fetch_package(Path(folder), progress=progress)
            model = convert(read_assets(package))
        save_model(model, cached, half=True, training={"origin": f"npm {PACKAGE} {VERSION}", "sha256": MODEL_SHA256})
        if progress:
            tqdm.write(f"converted once, for all later uses: {cached}", file=sys.stderr)
    return load_model(cached, classes=CLASSES)


def cached_file() -> Path:
    """Where the converted weights are kept: beside those of torchvision (see `torch.hub.get_dir`, TORCH_HOME)."""
    return Path(torch.hub.get_dir()) / "ssdlib" / "openimages_ssd300_mobilenet_v2.safetensors"


def fetch_package(folder: Path, *, progress: bool = True) -> Path:
    """Let npm fetch the tarball of the package into a folder, by the user's settings; no script of it is run.

    Raises:
        OSError: if there is no npm, or it cannot fetch the package.
    """
    advice = (
        f"get {TARBALL} where there is a network (npm pack {PACKAGE}@{VERSION}), and name it: "
        f"ssd models openimages:ssd300_mobilenet_v2 --source {TARBALL}"
    )
    return pack(PACKAGE, VERSION, folder, advice=advice, size="33 MB", progress=progress)


def read_assets(source: Path) -> bytes:
    """The file `ASSETS`: from a tarball, a folder that holds the tarball or the file, or the file itself.

    Raises:
        FileNotFoundError: if none of them is there.
        ValueError: if the content is not the one that was checked.
    """
    if source.is_dir():
        places = (source / TARBALL, source / ASSETS, source / "package" / ASSETS)
        source = next((place for place in places if place.is_file()), places[0])
    if not source.is_file():
        raise FileNotFoundError(f"{source} is not there: name {TARBALL} of npm's {PACKAGE}, {ASSETS}, or their folder")
    size = source.stat().st_size
    if size > _LARGEST:
        raise ValueError(f"{source} has {size} bytes: it is not {TARBALL}")
    content = source.read_bytes()
    if size == _ASSETS_BYTES:
        require_sum(content[_LABEL_BYTES:], MODEL_SHA256, source)
        return content
    require_sum(content, TARBALL_SHA256, source)
    name = f"package/{ASSETS}"
    content = read_members(content, {name}, _ASSETS_BYTES).get(name, b"")
    if len(content) != _ASSETS_BYTES:
        raise ValueError(f"{source} does not hold {name}")
    require_sum(content[_LABEL_BYTES:], MODEL_SHA256, source)
    return content


def convert(assets: bytes) -> SSD:
    """The network with the weights that the file `ASSETS` holds, in evaluation mode.

    Raises:
        ValueError: if it holds others.
    """
    labels = assets[:_LABEL_BYTES].decode("ascii", "replace").split("\n")
    if tuple(labels[1 : 1 + len(CLASSES)]) != CLASSES:
        raise ValueError(f"the model is for other classes: {', '.join(labels[1:])}")
    tensors = renamed(float16_constants(assets[_LABEL_BYTES:]))
    model = ssd300_mobilenet_v2(len(CLASSES) + 1, classes=CLASSES, activation="sigmoid")
    problems = misfits(tensors, model.state_dict())
    if problems:
        raise ValueError(f"the model does not fit {model.architecture}: {'; '.join(problems)}")
    model.load_state_dict(dict(tensors))
    return model.eval()


# The layers' names there, and what ours begin with. A normalised layer is a convolution ".0" and a bias ".1", but at
# the end of a block of MobileNetV2, where both are steps of the block itself.
_BLOCK = re.compile(r"expanded_conv(?:_(\d+))?/(expand|depthwise|project)")
_AUXILIARY = re.compile(r"layer_19_([12])_Conv2d_(\d)_")
_HEADS = {"BoxEncodingPredictor": "offset_head", "ClassPredictor": "class_head"}
_XYWH = [1, 0, 3, 2]  # from (y, x, h, w)


def renamed(constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the TensorFlow Lite file under our names, in PyTorch's layout, with offsets in the order x, y, w, h.

    Raises:
        ValueError: if there is a name that is not known.
    """
    tensors = {}
    for name, tensor in constants.items():
        layer = name.partition(";")[0].removeprefix("FeatureExtractor/MobilenetV2/")  # the rest: what was folded in
        weight, bias = _place(layer)
        if tensor.dim() == 4:
            depthwise = "/depthwise/" in layer
            tensor = tensor.permute(3, 0, 1, 2) if depthwise else tensor.permute(0, 3, 1, 2)  # from 1HWC, from OHWI
        if "BoxEncodingPredictor" in layer:
            tensor = tensor.unflatten(0, (-1, 4))[:, _XYWH].flatten(0, 1)
        tensors[weight if tensor.dim() == 4 else bias] = tensor.contiguous()
    return tensors


def _place(layer: str) -> tuple[str, str]:
    """Our names of the weight and of the bias of a layer."""
    first, _, rest = layer.partition("/")
    if found := _BLOCK.match(layer):
        block, step = int(found[1] or 0), ("expand", "depthwise", "project").index(found[2])
        step -= block == 0  # the first block has nothing to expand
        begin = f"backbone.features.{block + 1}.conv"
        if found[2] == "project":
            return f"{begin}.{step}.weight", f"{begin}.{step + 1}.bias"
        begin = f"{begin}.{step}"
    elif first in ("Conv", "Conv_1"):
        begin = f"backbone.features.{0 if first == 'Conv' else 18}"
    elif found := _AUXILIARY.match(layer):
        begin = f"backbone.auxiliary.{int(found[2]) - 2}.{int(found[1]) - 1}"
    elif (head := _HEADS.get(rest.partition("/")[0])) and (found := re.fullmatch(r"BoxPredictor_(\d)", first)):
        begin = f"{head}.convolutions.{found[1]}"
        return f"{begin}.weight", f"{begin}.bias"
    else:
        raise ValueError(f"the model has an unknown layer {layer!r}")
    return f"{begin}.0.weight", f"{begin}.1.bias"
