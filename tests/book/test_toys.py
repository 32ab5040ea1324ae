"""The tray of toys: the page's scripts have the same board and network as ssdlib, and the network finds the toys."""

from __future__ import annotations

import base64
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys_files
import toys_page
from PIL import Image
from support.playground import run_node
from support.small_site import build
from toys_files import FIRST, Toy

from ssdlib.data.synthetic import TOY_CLASSES
from ssdlib.data.synthetic.shapes import MAX_TURN
from ssdlib.detection import detect_plainly

# Lies over the edge, covers another, upside down, very small, very large.
ODD = (Toy(0, 0.02, 0.5, 0, 0.3), Toy(3, 0.1, 0.6, 180, 0.5), Toy(4, 0.98, 0.99, 77, 0.2), Toy(2, 0.6, 0.1, -400, 0.6))

SCRIPT = """
const bytes = (text) => bytesOfText(text);
const rgba = (text) => { // three bytes a pixel to four
  const found = bytes(text);
  const length = (found.length / 3) * 4;
  return Uint8ClampedArray.from({ length }, (_, i) => (i % 4 < 3 ? found[3 * (i >> 2) + (i % 4)] : 255));
};
const sprites = cutSprites(rgba(colours), rgba(masks), about.classes.length, about.sprites.side, about.sprites.half);
const layers = toyNetwork(about, new Uint16Array(bytes(halves).buffer), new Float32Array(bytes(channels).buffer));
const priors = priorsOfMaps(about.maps);
print(boards.map((toys) => {
  const rgb = putToys(Float32Array.from(bytes(board)), toys, sprites, about.shadow);
  const seen = toBytes(rgb, new Uint8ClampedArray(BOARD * BOARD * 4));
  const said = runToyNetwork(layers, about, prepareImage(seen, BOARD, BOARD, about.side));
  const scores = softmaxScores(said.logits, about.classes.length + 1);
  const found = suppress(candidatesOf(scores, boxesOf(said.offsets, priors), 0.05), 0.45).kept;
  return { ...said, found, seen: btoa(Array.from(seen, (one) => String.fromCharCode(one)).join("")) };
}));
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the page's scripts make of two boards."""
    board, pictures = toys_files.shown()
    masks = np.concatenate([masks for _, masks in pictures])
    given = {
        "board": board,
        "colours": np.concatenate([colours for colours, _ in pictures]),
        "masks": np.concatenate([masks, np.zeros_like(masks[..., :1])], axis=-1),
    }
    texts = {name: base64.b64encode(pixels.tobytes()).decode() for name, pixels in given.items()}
    halves, channels = (base64.b64encode(content).decode() for content in toys_files.weights())
    boards = [[toy._asdict() for toy in toys] for toys in (FIRST, ODD)]
    folder = tmp_path_factory.mktemp("node")
    about = toys_files.about()
    return run_node(  # type: ignore[no-any-return]
        SCRIPT, folder, toys_page.arithmetic(), about=about, boards=boards, halves=halves, channels=channels, **texts
    )


def pixels_of(answer: dict[str, Any]) -> toys_files.Pixels:
    seen = np.frombuffer(base64.b64decode(answer["seen"]), dtype=np.uint8)
    return seen.reshape(toys_files.BOARD, toys_files.BOARD, 4)[..., :3].copy()


@pytest.mark.parametrize(("number", "toys"), [(0, FIRST), (1, ODD)])
def test_the_board_is_the_same_on_the_page(answers: list[dict[str, Any]], number: int, toys: tuple[Toy, ...]) -> None:
    board, pictures = toys_files.shown()
    expected = toys_files.put_toys(board, toys, pictures)
    difference = np.abs(pixels_of(answers[number]).astype(int) - expected)
    assert difference.max() <= 1  # where a value lies just between two bytes
    assert (difference > 0).mean() < 1e-4
    assert (expected != board).any(axis=-1).mean() > 0.2


@pytest.mark.parametrize("number", [0, 1])
def test_the_network_is_the_same_on_the_page(answers: list[dict[str, Any]], number: int) -> None:
    image = toys_files.as_image(pixels_of(answers[number]))
    model = toys_files.network()
    (wanted,) = model.predict([image], min_score=0.05)
    found = answers[number]["found"]
    boxes = torch.tensor([one["box"] for one in found]) * toys_files.BOARD
    assert [one["label"] for one in found] == wanted["labels"].tolist() != []
    torch.testing.assert_close(boxes, wanted["boxes"], rtol=0, atol=0.05)
    torch.testing.assert_close(torch.tensor([one["score"] for one in found]), wanted["scores"], rtol=0, atol=1e-4)
    offsets = torch.tensor(answers[number]["offsets"]).view(1, -1, 4)
    logits = torch.tensor(answers[number]["logits"]).view(1, -1, len(TOY_CLASSES) + 1)
    (plainly,) = detect_plainly(offsets, logits, model.priors, 0.05)
    assert plainly["labels"].tolist() == wanted["labels"].tolist()


def boards_with(kind: int) -> list[tuple[Toy, ...]]:
    """A toy at four places, turned as the network has seen it, in three sizes, beside another one."""
    turn = min(45.0, np.degrees(MAX_TURN.get(TOY_CLASSES[kind], np.pi)))
    places = [(0.3, 0.3, -0.9), (0.7, 0.35, -0.3), (0.3, 0.7, 0.4), (0.62, 0.66, 0.9)]
    return [
        (Toy((kind + 1) % 6, 1 - x, 1 - y, 0, 0.28), Toy(kind, x, y, share * turn, size))
        for (x, y, share), size in itertools.product(places, (0.26, 0.34, 0.44))
    ]


PAIRS = """
const [toy, crate] = [(id, x, y, size = 0.3) => ({ id, kind: 0, x, y, turn: 0, size }), { id: 9, kind: 1, x: 0, y: 1, turn: 0, size: 0.4 }];
const found = (label, score, ...box) => ({ label, score, box, prior: 0 });
const middle = [0.35, 0.35, 0.65, 0.65];
const cases = [
  [[toy(1, 0.5, 0.5), toy(2, 0.5, 0.5), toy(3, 0.5, 0.5)], [found(1, 0.9, ...middle)]],
  [[toy(1, 0.5, 0.5), toy(2, 0.58, 0.5)], [found(1, 0.9, 0.4, 0.35, 0.7, 0.65), found(1, 0.8, ...middle)]],
  [[crate], [found(2, 0.9, 0, 0.8, 0.2, 1)]],
  [[toy(1, 0.5, 0.5), crate], [found(1, 0.9, ...middle), found(1, 0.4, 0.4, 0.4, 0.6, 0.6), found(3, 0.35, ...middle), found(1, 0.3, 0, 0.8, 0.2, 1)]],
  [[], [found(1, 0.5, ...middle)]],
];
print(cases.map(([toys, kept]) => {
  const pairs = foundToys(toys, kept);
  return [[...pairs].map(([id, one]) => [id, one?.score ?? null]), answerWords(toys, { kept, found: pairs }, classes, true)];
}));
"""  # noqa: E501


def test_a_detection_finds_one_toy_and_a_toy_has_one_detection(tmp_path: Path) -> None:
    script = "\n".join([toys_page.arithmetic(), toys_page.read("toys/stops")])
    covered, beside, corner, over, empty = run_node(PAIRS, tmp_path, script, classes=list(TOY_CLASSES))
    where = "ball in the middle"
    assert covered[0] == [[1, None], [2, None], [3, 0.9]]  # the uppermost
    assert covered[1] == f"1 of 3 found: ball 0.90 in the middle. Missed: {where}, {where}."
    assert beside[0] == [[1, 0.8], [2, 0.9]]  # each the nearer one
    assert corner[1] == "1 of 1 found: crate 0.90 bottom left."  # its centre is that of the part that is seen
    assert over[0] == [[1, 0.9], [9, None]]
    assert over[1] == (
        "1 of 2 found: ball 0.90 in the middle. Missed: crate bottom left. Found twice: ball 0.40."
        " No such toy there: donut 0.35, ball 0.30."
    )
    assert empty == [[], "The board is empty, and yet: ball."]


@pytest.mark.parametrize("kind", range(len(TOY_CLASSES)))
def test_the_network_finds_the_toys(kind: int) -> None:
    board, pictures = toys_files.shown()
    boards = boards_with(kind)
    images = [toys_files.as_image(toys_files.put_toys(board, toys, pictures)) for toys in boards]
    detections = toys_files.network().predict(images, min_score=0.5)
    hits = 0
    for found, toys in zip(detections, boards, strict=True):
        centres = (found["boxes"][:, :2] + found["boxes"][:, 2:]) / 2 / toys_files.BOARD
        near = (centres - torch.tensor([toys[1].x, toys[1].y])).abs().amax(dim=1) < 0.06
        hits += bool((near & (found["labels"] == kind + 1)).any())
    assert hits >= len(boards) - 1, f"{TOY_CLASSES[kind]}: {hits} of {len(boards)}"


def test_at_first_all_toys_are_found() -> None:
    board, pictures = toys_files.shown()
    (found,) = toys_files.network().predict(
        [toys_files.as_image(toys_files.put_toys(board, FIRST, pictures))], min_score=0.5
    )
    assert sorted(found["labels"].tolist()) == sorted(toy.kind + 1 for toy in FIRST)


def test_the_payload_is_a_call_with_all_that_is_needed() -> None:
    text = toys_files.payload()
    given = json.loads(text.removeprefix("ssdToys(").removesuffix(");\n"))
    assert len(base64.b64decode(given["halves"])) == 2 * sum(
        one["inputs"] * one["outputs"] * one["cells"] ** 2 for one in given["about"]["layers"]
    )
    assert len(text) < 2_200_000


def test_one_page_has_the_tray_and_no_other_grows(tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_text("extensions = ['myst_parser', 'toys_page']\n")
    pages = {"index": "```{toctree}\nother\n```\n\n```{raw} html\n" + toys_page.PLACE + "\n```\n", "other": "Text.\n"}
    for name, text in pages.items():
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\n{text}")
    assert build(tmp_path) == ""
    with_tray, without = ((tmp_path / "out" / f"{name}.html").read_text(encoding="utf-8") for name in pages)
    assert toys_page.MARKER in with_tray
    assert f'src="_static/{toys_page.STILL}?v={toys_page.version()}"' in with_tray
    assert with_tray.count(toys_page.SCRIPT) == with_tray.count("ssd-widgets.css") == 1
    assert with_tray.count(toys_page.DATA) == 1  # where the button finds it
    assert "toys" not in without
    beside = tmp_path / "out" / "_static"
    assert (beside / toys_page.DATA).read_text(encoding="utf-8") == toys_files.payload()
    with Image.open(beside / toys_page.STILL) as still:
        assert still.size == (toys_files.BOARD, toys_files.BOARD)
    assert toys_page.place("_static").count("ssd-toys-offer") == 1
    assert len(toys_page.place("_static")) < 2500
