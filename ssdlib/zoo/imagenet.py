"""Where a backbone starts from: torchvision's weights for ImageNet, or a file that holds such weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from torchvision.models import MobileNet_V2_Weights, MobileNet_V3_Large_Weights, VGG16_BN_Weights, VGG16_Weights

from ssdlib.data.names import said
from ssdlib.zoo.torch_file import read_torch_file

# The mean and deviation of these weights are IMAGENET_MEAN and IMAGENET_STD of `ssdlib.model`. The paper's own VGG-16
# was another one, trained in Caffe.
CLASSIFIERS: Mapping[str, Any] = {
    "ssd300_vgg16": VGG16_Weights.IMAGENET1K_V1,
    "ssd512_vgg16": VGG16_Weights.IMAGENET1K_V1,
    "ssd300_vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1,
    "ssd512_vgg16_bn": VGG16_BN_Weights.IMAGENET1K_V1,
    "ssd300_mobilenet_v2_bn": MobileNet_V2_Weights.IMAGENET1K_V1,
    "ssdlite320_mobilenet_v3_full": MobileNet_V3_Large_Weights.IMAGENET1K_V2,
}
"""Architectures that can start from a classifier, and torchvision's weights for it."""


def classifier_weights(architecture: str, file: str | Path | None = None) -> Mapping[str, Tensor]:
    """The weights that the backbone of an architecture starts from; hand them to `ssdlib.model.build_model`.

    Args:
        architecture: one of `CLASSIFIERS`.
        file: a state dict of torchvision's classifier, .pth or .safetensors. Without one, torchvision downloads the
            weights (VGG-16: 528 MB), checks their sum, and keeps them where torch.hub keeps its files.

    Raises:
        ValueError: if the architecture has no such weights, or the file holds no state dict.
        OSError: if the file cannot be read, or the weights cannot be downloaded.
    """
    if architecture not in CLASSIFIERS:
        known = ", ".join(CLASSIFIERS)
        raise ValueError(f"there are no weights for ImageNet for {architecture}: set pretrained=false, or take {known}")
    if file is not None:
        return _read(Path(file))
    weights = CLASSIFIERS[architecture]
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except OSError as error:  # URLError is one
        raise OSError(
            f"cannot download the weights {weights.url} ({error}); get the file where there is a network, and name it "
            f"with --weights"
        ) from error


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        state: Any = load_file(file) if file.suffix == ".safetensors" else read_torch_file(file)
    except OSError:
        raise
    except Exception as error:  # safetensors does not say which
        raise ValueError(f"{file} holds no weights that can be loaded safely: {said(error)}") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{file} holds no state dict, which maps names to tensors")
    return state
