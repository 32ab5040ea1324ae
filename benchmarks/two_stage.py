"""Where the time of two stages goes, part by part, and SSD's beside it.

    OMP_NUM_THREADS=1 python benchmarks/two_stage.py

trains a `TwoStage` for some steps on the sample (its first stage has learned to propose by then, and its second to
refuse), then times the parts of a detection of one image, and those of the small SSD that comes with the package, by
turns on the same image. It writes two_stage.json:

    steps, rounds   of the training, and of the timing
    milliseconds    {"two_stage": {part: median}, "ssd": {part: median}}, seconds of the processor in thousandths
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from record import RESULTS, circumstances, write_record
from torch import Tensor

from ssdlib.boxes import xyxy_to_cxcywh
from ssdlib.data import VOCDataset, sample_root
from ssdlib.detection import detect
from ssdlib.family.two_stage import TwoStage, two_stage_losses
from ssdlib.model import SSD, prepare
from ssdlib.training import Hyperparameters, TrainState, training_loop
from ssdlib.zoo import demo_model


def trained(steps: int) -> TwoStage:
    """A `TwoStage` after some steps on the training images of the sample."""
    torch.manual_seed(0)
    dataset = VOCDataset(sample_root(), "train")
    model = TwoStage(len(dataset.classes) + 1)
    config = Hyperparameters(iterations=steps, batch_size=8)
    for _ in training_loop(TrainState.start(model, config), batches(dataset), config, losses=two_stage_losses):
        pass
    return model.eval()


def batches(dataset: VOCDataset) -> Iterator[tuple[Tensor, list[dict[str, Tensor]]]]:
    """Batches of 8 in order, again and again."""
    images, targets = [], []
    for i in itertools.cycle(range(len(dataset))):
        image, target = dataset[i]
        height, width = image.shape[1:]
        images.append(prepare(image, 256))
        targets.append({**target, "boxes": target["boxes"] / torch.tensor([width, height, width, height])})
        if len(images) == 8:
            yield torch.stack(images), targets
            images, targets = [], []


def of_two_stages(model: TwoStage, image: Tensor, timed: Callable[..., Any]) -> None:
    """The parts of `TwoStage.detect`, each under its name."""
    feature_map = timed("backbone", model.features, image)
    said = timed("first head", model.rpn, feature_map)
    proposals = timed("proposals, with NMS", model.propose, *said)
    regions = timed("RoIAlign", model.regions, feature_map, proposals)
    offsets, logits = timed("second head", model.head, regions)
    priors = xyxy_to_cxcywh(proposals[0])
    timed("detections, with NMS", detect, offsets[None], logits[None], priors)


def of_ssd(model: SSD, image: Tensor, timed: Callable[..., Any]) -> None:
    """The parts of a detection by SSD."""
    maps = timed("backbone", lambda: model.backbone((image - model.mean) / model.std))
    offsets, logits = timed("heads", lambda: (model.offset_head(maps), model.class_head(maps)))
    timed("detections, with NMS", detect, offsets, logits, model.priors)


def measure(steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """The medians of all parts, in milliseconds."""
    two_stages, ssd = trained(steps), demo_model().eval()
    test = VOCDataset(sample_root(), "test")
    spent: dict[str, dict[str, list[float]]] = {"two_stage": {}, "ssd": {}}

    def timer(name: str) -> Callable[..., Any]:
        def timed(part: str, call: Callable[..., Any], *arguments: Any) -> Any:
            before = time.process_time()
            result = call(*arguments)
            spent[name].setdefault(part, []).append(time.process_time() - before)
            return result

        return timed

    with torch.no_grad():
        for k in range(rounds + 2):
            image = prepare(test[k % len(test)][0], 256)[None]
            of_two_stages(two_stages, image, timer("two_stage"))
            of_ssd(ssd, image, timer("ssd"))
    # The first two rounds get memory ready.
    return {
        name: {part: round(1000 * statistics.median(times[2:]), 2) for part, times in parts.items()}
        for name, parts in spent.items()
    }


def main(steps: int, rounds: int, folder: Path = RESULTS) -> None:
    """Measure and write the record."""
    milliseconds = measure(steps, rounds)
    command = f"OMP_NUM_THREADS=1 python benchmarks/two_stage.py --steps {steps} --rounds {rounds}"
    record = {"command": command, **circumstances(), "threads": torch.get_num_threads()}
    write_record({**record, "steps": steps, "rounds": rounds, "milliseconds": milliseconds}, "two_stage", folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    main(options.steps, options.rounds)
