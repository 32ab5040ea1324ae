"""How long the playground takes to learn in headless Chromium, and whether its page stays smooth meanwhile.

python benchmarks/playground.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "book" / "_ext")]

PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Playground</title>'
    '<link rel="stylesheet" href="{style}"><script src="{script}" defer></script></head>'
    '<body><div class="ssd-playground-place"></div></body></html>'
)
PLACE = "document.querySelector('.ssd-playground-place').playground"
FRAMES = """() => {
  window.frames_seen = 0;
  const next = () => { window.frames_seen += 1; requestAnimationFrame(next); };
  requestAnimationFrame(next);
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal", type=float, default=0.7, help="the mAP to reach")
    parser.add_argument("--limit", type=float, default=180, help="seconds after which it gives up")
    asked = parser.parse_args()

    import chromium
    from playground_page import SCRIPT, STYLE, bundle, style
    from playwright.sync_api import sync_playwright

    whole = PAGE.format(style=STYLE, script=SCRIPT)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        for name, text in ((SCRIPT, bundle()), (STYLE, style()), ("page.html", whole)):
            (Path(folder) / name).write_text(text, encoding="utf-8")
        page = chromium.launch(playwright).new_page()
        opened = time.perf_counter()
        page.goto((Path(folder) / "page.html").as_uri())
        page.wait_for_function(f"{PLACE}?.last")
        print(f"script {len(bundle()) / 1024:.0f} kB, alive after {time.perf_counter() - opened:.2f} s")
        page.evaluate(FRAMES)
        began = time.perf_counter()
        page.get_by_role("button", name="Start", exact=True).click()
        best = 0.0
        while best < asked.goal and time.perf_counter() - began < asked.limit:
            page.wait_for_timeout(500)
            best = page.evaluate(f"Math.max(...{PLACE}.last.scores.map(({{ value }}) => value))")
        seconds = time.perf_counter() - began
        steps, frames = page.evaluate(f"[{PLACE}.last.steps, window.frames_seen]")
    print(f"mAP {best:.2f} after {steps} steps in {seconds:.1f} s: {1000 * seconds / steps:.0f} ms a step")
    print(f"{frames / seconds:.0f} frames a second meanwhile")


if __name__ == "__main__":
    main()
