"""What the layers of a trained network answer to an image, as small pictures for a page."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ssdlib.model import SSD, prepare
from ssdlib.widgets.anatomy import Anatomy

CHANNELS = 6
LARGEST = 40  # cells on a side of an activation as it is shown; larger ones are averaged


@torch.no_grad()
def look_inside(model: SSD, image: Image.Image, found: Anatomy) -> dict[str, dict[str, Any]]:
    """Activations of each layer on an image, by the layer's name, and object scores where the layer predicts.

    Args:
        model: a trained SSD; it runs in evaluation mode.
        image: RGB.
        found: its anatomy.

    Returns:
        For each layer: "channels", the numbers of those that vary most, the one that varies most first; "picture", the
        address of a picture of them, one below the other, each from 0 to its largest activation; "most", these largest
        activations. A layer that predicts has "scores" too: a picture of the highest score of an object, 0..1, among
        the priors of each cell. The name "image" has the picture of red, green and blue, 0..1, as the network gets
        them.
    """
    outputs: dict[str, Tensor] = {}
    hooks = []
    for layer in found.layers:
        # A convolution stands first in its block: with its normalisation and ReLU.
        path = layer.module if layer.kind == "pooling" else layer.module.rpartition(".")[0]
        module = model.get_submodule(path)
        hooks.append(
            # A copy, as the next layer may work in place.
            module.register_forward_hook(lambda _, __, out, name=layer.name: outputs.update({name: out[0].clone()}))
        )
    training = model.training
    seen = prepare(image, model.recipe.image_size)  # (3, S, S)
    try:
        _, logits = model.eval()(seen[None].to(model.priors.device))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    pictures: dict[str, dict[str, Any]] = {"image": {"picture": strip(seen)}}
    for layer in found.layers:
        x = outputs[layer.name].float().cpu()  # (C, H, W)
        channels = x.var(dim=(1, 2), correction=0).argsort(descending=True)[:CHANNELS]
        most = x[channels].amax(dim=(1, 2))
        shown = x[channels] / most.clamp(min=1e-6)[:, None, None]
        pictures[layer.name] = {
            "channels": channels.tolist(),
            "most": [round(value, 2) for value in most.tolist()],
            "picture": strip(shown),
        }
    objects = 1 - logits[0].float().cpu().softmax(dim=1)[:, 0]  # (P,)
    for k, part in enumerate(model.recipe.map_slices()):
        side = model.recipe.map_sizes[k]
        best = objects[part].reshape(side, side, -1).amax(dim=2)
        pictures[found.layers[found.maps[k]].name]["scores"] = strip(best[None])
    return pictures


def strip(tiles: Tensor) -> str:
    """Tiles (K, H, W) of 0..1, one below the other, as the address of a PNG of 16 greys; 1 is white."""
    side = min(LARGEST, tiles.shape[-1])
    small = F.adaptive_avg_pool2d(tiles[None].clamp(0, 1), side)[0]
    greys = (small * 15).round().to(torch.uint8).reshape(-1, side)
    picture = Image.fromarray(greys.numpy(), "P")
    picture.putpalette([level * 17 for level in range(16) for _ in range(3)])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, bits=4)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
