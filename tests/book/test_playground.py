"""The playground computes what ssdlib computes: same weights, same scenes, same numbers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support.playground import modules, run_node, scene_tensors, torch_network
from torch.testing import assert_close

from ssdlib.boxes import cxcywh_to_xyxy, iou
from ssdlib.detection import detect
from ssdlib.loss import multibox_loss
from ssdlib.matching import match
from ssdlib.metrics import evaluate

WEIGHTS = (
    "trainer.network.layers.map(({ outputs, weight, bias }) => ({ outputs, weight: [...weight], bias: [...bias] }))"
)
TEN_STEPS = f"""
const trainer = new Trainer(settings);
const first = {WEIGHTS};
const random = randomNumbers(5);
// A small object inside several priors of one area overlaps them equally: rounding decides, so such scenes are no test.
const priors = trainer.network.priors.map(toCorners);
const hasTie = ({{ boxes }}) => boxes.some((box) => {{
  const [first, second] = priors.map((prior) => iou(box, prior)).sort((a, b) => b - a);
  return first - second < 1e-5;
}});
const scenes = Array.from({{ length: 300 }}, () => randomScene(random, 0.03)).filter((scene) => !hasTie(scene));
const batches = Array.from({{ length: 10 }}, (_, i) => scenes.slice(3 * i, 3 * i + 3));
if (emptyScene) batches[0][1] = drawScene([], 0.03, random);
const losses = [];
let gradients = null;
const usual = trainer.optimizer.step.bind(trainer.optimizer);
trainer.optimizer.step = (rate, scale) => {{
  gradients ??= trainer.network.layers.map(({{ weightGradient, biasGradient }}) => ({{
    weight: weightGradient.map((g) => g * scale), bias: biasGradient.map((g) => g * scale) }}));
  usual(rate, scale);
}};
for (const batch of batches) losses.push(trainer.step(batch));
print({{ first, batches, losses, gradients, last: {WEIGHTS} }});
"""


@pytest.mark.parametrize(
    ("settings", "empty_scene"),
    [
        ({"maps": "both", "priors": 3, "negatives": 3, "threshold": 0.5, "width": 1}, False),
        ({"maps": "fine", "priors": 1, "negatives": 0, "threshold": 0.4, "width": 1}, False),
        ({"maps": "coarse", "priors": 5, "negatives": 1000, "threshold": 0.5, "width": 0.5}, True),
        ({"maps": "both", "priors": 5, "negatives": 3, "threshold": 0.3, "width": 1.5}, True),
    ],
)
def test_ten_steps_are_those_of_ssdlib(settings: dict[str, Any], empty_scene: bool, tmp_path: Path) -> None:
    there = run_node(TEN_STEPS, tmp_path, settings=settings, emptyScene=empty_scene)
    network = torch_network(there["first"], settings)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.004)
    for number, (batch, losses) in enumerate(zip(there["batches"], there["losses"], strict=True)):
        images, targets = scene_tensors(batch)
        offsets, logits = network(images)
        loss = multibox_loss(
            offsets,
            logits,
            targets,
            network.priors,
            threshold=settings["threshold"],
            negatives_per_positive=settings["negatives"],
        )
        optimizer.zero_grad()
        sum(loss.values()).backward()  # type: ignore[union-attr]
        for name, value in loss.items():
            assert losses[name] == pytest.approx(value.item(), abs=1e-4, rel=1e-4)
        if number == 0:
            for gradient, module in zip(there["gradients"], modules(network), strict=True):
                same(gradient["weight"], module.weight.grad)
                same(gradient["bias"], module.bias.grad)
        optimizer.step()
    for layer, module in zip(there["last"], modules(network), strict=True):
        same(layer["weight"], module.weight)
        same(layer["bias"], module.bias)


def same(there: list[float], here: torch.Tensor | None) -> None:
    wanted = torch.zeros(len(there)) if here is None else here.detach().flatten()  # no gradient: nothing was positive
    assert_close(torch.tensor(there, dtype=torch.float64), wanted.double(), atol=1e-4, rtol=1e-4)


def test_gradients_are_those_of_finite_differences(tmp_path: Path) -> None:
    found = run_node(
        """
        const trainer = new Trainer({ batch: 2 });
        const random = randomNumbers(3);
        const scenes = [randomScene(random, 0.03), randomScene(random, 0.03)];
        let gradients = null;
        trainer.optimizer.step = (rate, scale) => {
          gradients = trainer.network.layers.flatMap(({ weightGradient, biasGradient }) =>
            [...weightGradient, ...biasGradient].map((g) => g * scale));
          for (const { weightGradient, biasGradient } of trainer.network.layers) {
            weightGradient.fill(0);
            biasGradient.fill(0);
          }
        };
        const total = () => {
          const { localization, confidence } = trainer.step(scenes);
          return localization + confidence;
        };
        total();
        const exact = gradients;
        const places = trainer.network.layers.flatMap(({ weight, bias }) =>
          [weight, bias].flatMap((values) => Array.from(values, (_, i) => [values, i])));
        const pairs = [];
        for (let n = 0; n < places.length; n += 97) {
          const [values, i] = places[n];
          const before = values[i];
          const at = (change) => {
            values[i] = before + change;
            const loss = total();
            values[i] = before;
            return loss;
          };
          pairs.push([exact[n], (at(1e-6) - at(-1e-6)) / 2e-6]);
        }
        print(pairs);
        """,
        tmp_path,
    )
    assert len(found) == 122
    assert sum(abs(exact) > 1e-3 for exact, _ in found) > 60
    wrong = [(exact, measured) for exact, measured in found if abs(exact - measured) > 1e-4 * max(1, abs(exact))]
    assert len(wrong) <= 2, wrong  # where a pixel changes its winner in between, a difference is no gradient


@pytest.mark.parametrize("seed", range(3))
def test_matches_detections_and_map_are_those_of_ssdlib(seed: int, tmp_path: Path) -> None:
    there = run_node(
        """
        const trainer = new Trainer({ seed, batch: 4 });
        for (let i = 0; i < 60; i += 1) trainer.step();
        const scenes = trainer.unseen;
        const predictions = scenes.map((scene) => trainer.predict(scene));
        print({
          priors: trainer.network.priors, scenes, predictions, value: trainer.evaluate(),
          matched: scenes.map(({ boxes }) =>
            matchPriors(boxes, trainer.network.priors, { threshold: 0.4, everyObject: false })),
          found: scenes.map((scene) => trainer.detect(scene)),
        });
        """,
        tmp_path,
        seed=seed + 1,
    )
    priors = torch.tensor(there["priors"], dtype=torch.float64)
    offsets = torch.tensor([p["offsets"] for p in there["predictions"]], dtype=torch.float64).view(-1, 135, 4)
    logits = torch.tensor([p["logits"] for p in there["predictions"]], dtype=torch.float64).view(-1, 135, 4)
    _, targets = scene_tensors(there["scenes"])
    for target, matched in zip(targets, there["matched"], strict=True):
        overlaps = iou(target["boxes"].double(), cxcywh_to_xyxy(priors))
        best, object_ = overlaps.max(dim=0)
        assert torch.equal(torch.tensor(matched), torch.where(best >= 0.4, object_, -1))
    detections = detect(offsets, logits, priors)
    assert sum(len(found["scores"]) for found in detections) > 300
    for found, theirs in zip(detections, there["found"], strict=True):
        assert found["labels"].tolist() == [one["label"] for one in theirs]
        assert_close(found["scores"], torch.tensor([one["score"] for one in theirs]), atol=1e-5, rtol=0)
        assert_close(found["boxes"], torch.tensor([one["box"] for one in theirs]), atol=1e-5, rtol=0)
    assert there["value"] == pytest.approx(evaluate(detections, targets, 4).mean, abs=1e-6)


def test_every_object_keeps_a_prior_as_in_ssdlib(tmp_path: Path) -> None:
    numbers = random.Random(7)
    cases = []
    for _ in range(40):
        corners = [sorted((numbers.random(), numbers.random())) for _ in range(2 * numbers.randint(1, 6))]
        cases.append([[x[0], y[0], x[1], y[1]] for x, y in zip(corners[::2], corners[1::2], strict=True)])
    there = run_node(
        """
        const priors = makePriors({ priors: 5, maps: "both" });
        const rules = { threshold: 0.5, everyObject: true };
        print({ priors, matched: cases.map((boxes) => matchPriors(boxes, priors, rules)) });
        """,
        tmp_path,
        cases=cases,
    )
    priors = torch.tensor(there["priors"], dtype=torch.float64)
    for boxes, matched in zip(cases, there["matched"], strict=True):
        wanted = match(torch.tensor(boxes, dtype=torch.float64), priors)
        overlaps = iou(torch.tensor(boxes, dtype=torch.float64), cxcywh_to_xyxy(priors))
        for j in (wanted != torch.tensor(matched)).nonzero().flatten().tolist():  # equal overlaps: rounding decides
            objects = {int(wanted[j]), matched[j]} - {-1}
            top = overlaps[list(objects)].topk(2, dim=1).values
            assert (top[:, 0] - top[:, 1] < 1e-9).any()
        assert set(range(len(boxes))) <= set(matched)


@pytest.mark.slow
def test_it_learns_and_each_mistake_of_the_error_lab_shows(tmp_path: Path) -> None:
    right, planted = run_node(
        """
        const sum = (losses) => losses.reduce((all, one) => all + one.localization + one.confidence, 0);
        const run = (mistake, steps) => {
          const trainer = new Trainer({ mistake });
          while (trainer.steps < steps) trainer.step();
          const [first, last] = [trainer.losses.slice(0, 20), trainer.losses.slice(-20)].map(sum);
          return { trainer, fallen: last / first, value: trainer.evaluate() };
        };
        const { trainer, ...right } = run("none", 300);
        const planted = {};
        for (const mistake of ["nms", "variances"]) { // these two spoil the detection only
          trainer.change({ mistake });
          planted[mistake] = { value: trainer.evaluate(), fallen: right.fallen };
        }
        for (const mistake of ["swapped", "labels", "stacking"]) {
          const { fallen, value } = run(mistake, 200);
          planted[mistake] = { fallen, value };
        }
        print([right, planted]);
        """,
        tmp_path,
    )
    assert right["value"] > 0.6
    assert planted.keys() == {"nms", "variances", "swapped", "labels", "stacking"}
    for name, there in planted.items():
        assert there["fallen"] < 0.9, (name, there)  # the loss falls all the same
        assert there["value"] < 0.7 * right["value"], (name, there)
    print(right, planted)
