"""The built site, for the tests of its pages: built once, whatever number of processes share the tests.

It is built as `make book` does it; where the last build is still true that takes seconds. To test a site that was built
elsewhere, name its folder in BUILT_SITE.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.repository import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Page

PLACE = re.compile(r'<div class="ssd-widget-place" data-module="(\w+)">.*?</script>', re.DOTALL)


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site."""
    if "BUILT_SITE" in os.environ:
        return Path(os.environ["BUILT_SITE"])
    if not hasattr(request.config, "workerinput"):
        return _built()
    import fcntl  # of several processes, which are never started on Windows, the first one builds

    shared = tmp_path_factory.getbasetemp().parent
    with open(shared / "site.lock", "w", encoding="utf-8") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        if not (shared / "site.built").exists():
            _built()
            (shared / "site.built").touch()
    return ROOT / "_build" / "html"


def _built() -> Path:
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(ROOT), "-W", "--keep-going"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return ROOT / "_build" / "html"


@pytest.fixture(scope="session")
def chapters(site: Path) -> dict[str, list[str]]:
    """Pages that hold widgets, with the modules of these."""
    pages = {page.name: PLACE.findall(page.read_text(encoding="utf-8")) for page in sorted(site.glob("book/*.html"))}
    return {name: modules for name, modules in pages.items() if modules}


def pages(site: Path) -> list[Path]:
    return sorted(path.resolve() for path in site.glob("book/*.html"))


def wait_until_live(page: Page, count: int) -> None:
    page.wait_for_function(
        "n => document.querySelectorAll('.ssd-widget-place[data-live] .ssd-widget').length === n", arg=count
    )
