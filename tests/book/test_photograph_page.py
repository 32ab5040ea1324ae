""" "Your photograph" in a browser: the same detections as Python's, by button, key, file and camera, and no request."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import photograph_page
import pytest
import torch
from PIL import Image
from support.browser import PAPER, OpenPage, violations
from support.openimages import openimages
from support.photograph_page import detector_files
from support.photographs import PHOTOGRAPHS, photograph

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGE = "document.querySelector('.ssd-photograph-place').photograph"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the detector, as the book's builder makes it."""
    found = detector_files()
    root = tmp_path_factory.mktemp("site")
    (root / photograph_page.SCRIPT).write_text(photograph_page.bundle(), encoding="utf-8")
    (root / photograph_page.STYLE).write_text(photograph_page.style(), encoding="utf-8")
    shutil.copytree(found, root / "photograph")
    for theme, paper in PAPER.items():
        (root / f"{theme}.html").write_text(
            f'<!doctype html><html lang="en" data-theme="{theme}"><head><meta charset="utf-8"><title>Photograph</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
            f'<link rel="stylesheet" href="{photograph_page.STYLE}">'
            f'<script src="{photograph_page.SCRIPT}" defer></script>'
            f"<style>body {{ max-width: 820px; margin: auto; {paper} }}</style></head><body><main><h1>Photograph</h1>"
            f"{photograph_page.place(found)}</main></body></html>",
            encoding="utf-8",
        )
    return root


@dataclass
class Server:
    """A plain server of files, which remembers what it was asked for."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    missing: str = ""  # a part of the names of files that it does not find


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    told = Server()

    class Plain(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append(self.path.partition("?")[0])
            if told.missing and told.missing in self.path:
                return self.send_error(404)
            super().do_GET()

        def end_headers(self) -> None:
            policy = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'"
            self.send_header("Content-Security-Policy", f"{policy}; img-src 'self' data:")
            super().end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Plain, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        told.address = f"http://127.0.0.1:{http.server_port}"
        yield told
        http.shutdown()


CAMERA = """
window.streams = []
window.lateness = 0
const given = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices)
navigator.mediaDevices.getUserMedia = async (wanted) => {
  await new Promise((resolve) => setTimeout(resolve, window.lateness))
  window.streams.push(await given(wanted))
  return window.streams.at(-1)
}
"""


@pytest.fixture(scope="module")
def live(browser: Browser, server: Server) -> Iterator[Page]:
    """The page with the detector, fetched once; what was wrong meanwhile is seen at the end."""
    problems: list[str] = []
    context = browser.new_context(viewport={"width": 1000, "height": 900})
    page = context.new_page()
    page.add_init_script(CAMERA)
    page.on("request", lambda one: None if one.url.startswith((server.address, "data:")) else problems.append(one.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type in ("error", "warning") else None)
    page.goto(f"{server.address}/light.html")
    assert "photograph" not in "".join(server.asked[3:])  # nothing before it is asked for
    offer = page.get_by_role("button", name="Fetch the detector")
    assert offer.inner_text() == "Fetch the detector, 12.6 MB"
    offer.press("Enter")
    wait(page, "seen?.result", timeout=90_000)
    yield page
    context.close()
    assert not problems, "\n".join(problems)


def wait(page: Page, condition: str, **options: Any) -> None:
    """Until something is true of the page. The policy forbids to evaluate what waits there: asked from outside."""
    for _ in range(options.get("timeout", 30_000) // 50):
        if page.evaluate(f"Boolean({PAGE}.{condition})"):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not in time: {condition}")


def show(page: Page, number: int) -> None:
    """One of the sample photographs, found again from the beginning."""
    page.evaluate(f"{PAGE}.seen = null")
    page.locator(".ssd-photo-sources button").nth(number).click()
    wait(page, "seen?.result")


@pytest.fixture
def fresh(live: Page) -> Page:
    """The page with the cat, as it was when it had been fetched."""
    live.evaluate(
        f"{PAGE}.view = {{ layers: ['found'], minScore: 0.3, maxOverlap: 0.45, map: -1, label: 0, prior: 0 }}"
    )
    show(live, 0)
    return live


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_detections_are_those_of_python(live: Page, name: str) -> None:
    image = photograph(name)
    for min_score in (0.3, 0.1):
        live.evaluate(f"{PAGE}.view.minScore = {min_score}")
        show(live, list(PHOTOGRAPHS).index(name))
        found = live.evaluate(f"{PAGE}.seen.result.kept")
        (wanted,) = openimages().predict([image], min_score=min_score)
        height, width = image.shape[1:]
        boxes = torch.tensor([one["box"] for one in found]) * torch.tensor([width, height, width, height])
        assert [one["label"] for one in found] == wanted["labels"].tolist() != []
        torch.testing.assert_close(boxes, wanted["boxes"], rtol=0, atol=0.5)
        torch.testing.assert_close(torch.tensor([one["score"] for one in found]), wanted["scores"], rtol=0, atol=1e-3)


def test_sliders_ask_the_network_no_second_time(fresh: Page) -> None:
    before = fresh.evaluate(f"{PAGE}.seen.times.network")
    fresh.get_by_label("Lowest score").fill("0.05")
    assert fresh.evaluate(f"{PAGE}.seen.result.kept.length") > 5
    removed = fresh.evaluate(f"{PAGE}.seen.result.removed.length")
    fresh.get_by_label("Allowed IoU").fill("0.95")
    assert fresh.evaluate(f"{PAGE}.seen.result.removed.length") < removed
    assert fresh.evaluate(f"{PAGE}.seen.times.network") == before


def test_the_list_says_when_there_are_more(fresh: Page) -> None:
    more = fresh.locator(".ssd-table td", has_text="more are removed")
    assert more.count() == 0
    fresh.evaluate(f"{PAGE}.list([], Array(1071).fill({{ prior: 0, label: 1, score: 0.1, overlap: 0.5, by: {{}} }}))")
    assert fresh.locator(".ssd-table tbody tr").count() == 61
    assert more.inner_text() == "1,011 more are removed"


def test_layers_lie_on_the_photograph(fresh: Page) -> None:
    fresh.get_by_label("Lowest score").fill("0.05")
    shown = {
        "Removed by NMS": ".ssd-photo-removed",
        "One prior": ".ssd-photo-decoded",
        "Heat": ".ssd-photo-picture > canvas:not([hidden]) ~ canvas:not([hidden])",
    }
    for name, what in shown.items():
        assert fresh.locator(what).count() == 0, name
        fresh.get_by_role("checkbox", name=name).check()
        assert fresh.locator(what).count() > 0, name
    fresh.get_by_role("checkbox", name="Detections").uncheck()
    assert fresh.locator(".ssd-photo-kept").count() == 0


def test_the_heat_of_a_map_is_its_best_scores(fresh: Page) -> None:
    pick = fresh.get_by_role("button", name="Map of 3 × 3 cells, 6 priors each, best score 0.81")
    pick.press("Enter")
    assert pick.get_attribute("aria-pressed") == "true"
    light = fresh.evaluate(
        "Array.from(document.querySelector('.ssd-photo-picture > canvas + canvas')"
        ".getContext('2d').getImageData(0, 0, 3, 3).data)"
    )
    reds = light[::4]
    assert reds.index(max(reds)) == 4  # the middle of nine, where the cat is
    fresh.get_by_label("Heat of").select_option("Car")
    assert float(fresh.locator(".ssd-photo-pick").nth(3).inner_text().split()[-1]) < 0.1


def test_a_prior_is_followed_from_its_numbers_to_its_fate(fresh: Page) -> None:
    steps = fresh.locator(".ssd-photo-steps")
    assert "Number 1,911: row 0, column 0, shape 0 of map 5" in steps.inner_text()
    assert "It stays, as number 1" in steps.inner_text()
    fresh.get_by_label("Lowest score").fill("0.05")
    lost = fresh.evaluate(f"{PAGE}.seen.result.removed[0]")
    fresh.locator(".ssd-table tr[data-link]").nth(fresh.evaluate(f"{PAGE}.seen.result.kept.length")).click()
    assert f"{lost['score']:.3f}" in steps.inner_text()
    assert "Removed: number 1, Cat 0.847, is better and overlaps it by" in steps.inner_text()
    fresh.get_by_role("combobox", name="Map").select_option("19 × 19")
    fresh.get_by_label("Row").fill("99")
    fresh.keyboard.press("Enter")
    fresh.get_by_label("Shape").fill("2")
    fresh.keyboard.press("Enter")
    assert "row 18, column 0, shape 2 of map 0" in steps.inner_text()
    assert "no candidate" in steps.inner_text()
    fresh.evaluate(f"{PAGE}.look({{ map: 1, layers: ['heat'] }})")
    fresh.locator(".ssd-photo-hit").click(position={"x": 398, "y": 8})  # of about 410
    assert "row 0, column 9" in steps.inner_text()


def test_a_file_of_the_readers_stays_on_the_page(fresh: Page, server: Server, tmp_path: Path) -> None:
    turned = Image.fromarray(photograph("chelsea").permute(1, 2, 0).numpy()).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned right again
    turned.save(tmp_path / "mine.png", exif=exif)
    asked = len(server.asked)
    fresh.evaluate(f"{PAGE}.seen = null")
    fresh.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    wait(fresh, "seen?.result")
    assert fresh.get_by_role("status").inner_text().startswith("mine.png; found: Cat 0.85.")
    assert fresh.locator("input[type=file]").input_value() == ""  # else the same file could not be chosen again
    (tmp_path / "notes.png").write_text("no picture")
    fresh.locator("input[type=file]").set_input_files(tmp_path / "notes.png")
    said = fresh.get_by_text("notes.png is no photograph that this browser can read")
    said.wait_for()
    assert said.bounding_box()["y"] < fresh.locator(".ssd-photo-picture").bounding_box()["y"]  # type: ignore[index]
    assert server.asked[asked:] == []


def test_what_is_transparent_is_black_for_the_eye_and_for_the_network(fresh: Page, tmp_path: Path) -> None:
    Image.new("RGBA", (40, 30), (255, 255, 255, 0)).save(tmp_path / "glass.png")
    fresh.evaluate(f"{PAGE}.seen = null")
    fresh.locator("input[type=file]").set_input_files(tmp_path / "glass.png")
    wait(fresh, "seen?.result")
    assert fresh.evaluate(f"Array.from({PAGE}.seen.pixels.data.subarray(0, 4))") == [0, 0, 0, 255]


def test_the_camera_is_answered_until_it_is_stopped(fresh: Page, server: Server) -> None:
    asked = len(server.asked)
    status = fresh.get_by_role("status")
    fresh.get_by_role("button", name="Camera", exact=True).click()
    wait(fresh, "frames?.length >= 3")
    said = re.fullmatch(r"The camera: (.+) pictures a second, on this machine only\.", status.inner_text())
    assert said is not None
    assert 0 < float(said[1]) < 100
    assert fresh.evaluate(f"[{PAGE}.seen.pixels.width, {PAGE}.seen.pixels.height]") == [640, 480]
    fresh.get_by_role("button", name="Stop the camera").click()
    assert fresh.evaluate(f"{PAGE}.camera.running()") is False
    assert fresh.get_by_role("button", name="Camera", exact=True).is_visible()
    assert server.asked[asked:] == []


def test_a_camera_that_is_not_wanted_any_more_is_off(fresh: Page) -> None:
    """A camera that goes on behind the page's back would be the worst that this page can do."""
    fresh.evaluate("window.streams = []; window.lateness = 300")
    camera = fresh.get_by_role("button", name="Camera", exact=True)
    camera.click()
    camera.click()  # the browser may still be asking the reader
    fresh.get_by_role("button", name="Stop the camera").click()
    camera.click()
    fresh.evaluate(f"{PAGE}.seen = null")
    fresh.locator(".ssd-photo-sources button").nth(1).click()
    wait(fresh, "camera && window.streams.length === 3")
    wait(fresh, "seen?.result")
    fresh.wait_for_timeout(100)
    ended = "window.streams.every((stream) => stream.getTracks().every((track) => track.readyState === 'ended'))"
    assert fresh.evaluate(ended)
    assert camera.is_visible()
    assert fresh.get_by_role("status").inner_text().startswith("A cup of coffee; found:")


def test_a_camera_that_fails_is_told_and_stopped(fresh: Page) -> None:
    fail = "() => Promise.reject(new Error('out of memory'))"
    fresh.evaluate(f"() => {{ const d = {PAGE}.detector; Object.assign(d, {{ whole: d.detect, detect: {fail} }}) }}")
    camera = fresh.get_by_role("button", name="Camera", exact=True)
    camera.click()
    fresh.get_by_text("It did not work: out of memory.").wait_for()
    assert fresh.evaluate(f"{PAGE}.camera.running()") is False
    fresh.evaluate(f"() => {{ const d = {PAGE}.detector; d.detect = d.whole }}")
    deny = "async () => { throw new Error('permission denied') }"
    fresh.evaluate(f"() => {{ const m = navigator.mediaDevices; m.whole = m.getUserMedia; m.getUserMedia = {deny} }}")
    camera.click()
    fresh.get_by_text("It did not work: permission denied.").wait_for()
    assert camera.is_visible()
    fresh.evaluate("() => { const m = navigator.mediaDevices; m.getUserMedia = m.whole }")


def test_of_two_photographs_the_one_asked_for_last_is_shown(fresh: Page) -> None:
    fresh.evaluate(
        f"{PAGE}.seen = null; const wait = (value, time) => new Promise(done => setTimeout(() => done(value), time));"
        f"const pixels = new ImageData(8, 8); {PAGE}.take(() => wait(pixels, 300), 'First', '');"
        f"{PAGE}.take(() => wait(pixels, 0), 'Last', '')"
    )
    wait(fresh, "seen?.result")
    fresh.wait_for_timeout(400)
    assert fresh.evaluate(f"{PAGE}.seen.name") == "Last"


def test_it_is_accessible_and_fits(fresh: Page) -> None:
    for name in ("Removed by NMS", "Heat", "One prior"):
        fresh.get_by_role("checkbox", name=name).check()
    assert violations(fresh) == []
    fresh.evaluate(
        "document.documentElement.dataset.theme = 'dark'; document.body.style = 'background: #121212; color: white'"
    )
    assert violations(fresh) == []
    fresh.evaluate("document.documentElement.dataset.theme = 'light'; document.body.style = ''")
    for width in (320, 360, 1280, 1000):
        fresh.set_viewport_size({"width": width, "height": 900})
        assert fresh.evaluate("document.documentElement.scrollWidth") <= width


def test_a_detector_that_cannot_be_fetched_is_said_and_asked_for_again(browser: Browser, server: Server) -> None:
    page = browser.new_page()
    server.missing = "model.bin"
    try:
        page.goto(f"{server.address}/dark.html")
        page.get_by_role("button", name="Fetch the detector").click()
        page.get_by_text("The detector does not start: model.bin").wait_for(timeout=60_000)
        assert page.get_by_role("button", name="Fetch the detector").get_attribute("aria-disabled") == "false"
        asked = len(server.asked)
        assert page.evaluate(f"{PAGE}.loading.click(), {PAGE}.bar.value") == 0  # from the beginning
        wait(page, "loading.ariaDisabled === 'false'")
        assert any("model.bin" in path for path in server.asked[asked:])
    finally:
        server.missing = ""
        page.context.close()


def test_opened_as_a_file_it_says_what_to_do(folder: Path, open_page: OpenPage) -> None:
    page = open_page((folder / "light.html").as_uri())
    assert page.get_by_text("python -m http.server").is_visible()
    assert page.get_by_role("button").count() == 0
    assert violations(page) == []
