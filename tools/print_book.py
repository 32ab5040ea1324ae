"""Print the built book to one PDF, page after page of its table of contents, with bookmarks.

    make book && python tools/print_book.py          writes _build/ssd-from-scratch.pdf
    python tools/print_book.py OTHER.pdf

Widgets are printed as pictures of their first state. The solutions of the exercises are left out.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path

import chromium
from playwright.sync_api import Browser, Page, sync_playwright
from pypdf import PdfWriter
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm import tqdm

from ssdlib.data.files import replaced

ROOT = Path(__file__).resolve().parent.parent
# What helps on a screen only: bars, buttons, and the room beside the text that the contents of a page take.
ON_PAPER = """
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer, .bd-footer, .copybtn,
.toggle-button, .headerlink, button.theme-switch-button, div.solution, #jb-print-toc { display: none !important; }
.bd-main .bd-content .bd-article-container { max-width: none; padding: 0; }
pre { white-space: pre-wrap !important; }
"""


def pages(site: Path) -> list[Path]:
    """The built pages in the order of the table of contents.

    Raises:
        FileNotFoundError: if one is missing, as the book is not built.
    """
    toc = parse_toc_yaml(ROOT / "_toc.yml")
    names = [toc.root.docname, *(item for part in toc.root.subtrees for item in part.items if isinstance(item, str))]
    found = [site / f"{name}.html" for name in names]
    for page in found:
        if not page.is_file():
            raise FileNotFoundError(f"{page} is missing: run `make book` first")
    return found


def as_pdf(tab: Page, page: Path) -> bytes:
    """One page of the site on A4."""
    tab.goto(page.as_uri())
    tab.add_style_tag(content=ON_PAPER)
    tab.emulate_media(media="print", color_scheme="light")
    tab.wait_for_function(
        "() => !document.querySelector('.math') || document.querySelectorAll('mjx-container').length > 0"
    )
    return tab.pdf(
        format="A4", scale=0.85, margin={"top": "15mm", "bottom": "15mm", "left": "15mm", "right": "15mm"}, tagged=True
    )


def print_book(browser: Browser, site: Path, pdf: Path) -> int:
    """Print all pages of a site to one file; returns the number of its sheets."""
    writer = PdfWriter()
    tab = browser.new_page()
    for page, title in _titled(tab, pages(site)):
        writer.append(io.BytesIO(as_pdf(tab, page)), outline_item=title, import_outline=False)
    tab.close()
    with replaced(pdf) as aside:
        writer.write(aside)
    return len(writer.pages)


def _titled(tab: Page, found: list[Path]) -> Iterator[tuple[Path, str]]:
    for page in tqdm(found, "printing", unit="page", disable=not sys.stderr.isatty()):
        tab.goto(page.as_uri())
        yield page, tab.title().rsplit(" — ", 1)[0]


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit()
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "_build" / "ssd-from-scratch.pdf"
    with sync_playwright() as playwright:
        browser = chromium.launch(playwright)
        sheets = print_book(browser, ROOT / "_build" / "html", target)
        browser.close()
    print(f"{target}: {sheets} sheets")
