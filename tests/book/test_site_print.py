"""The built site as one printed book."""

from __future__ import annotations

from pathlib import Path

import print_book
import pypdf
import pytest
from playwright.sync_api import Browser

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_book_prints_to_one_file(site: Path, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "book.pdf"
    sheets = print_book.print_book(browser, site, path)
    printed = pypdf.PdfReader(path)
    assert len(printed.pages) == sheets
    titles = [entry.title for entry in printed.outline]
    assert titles[0] == "SSD from scratch"
    assert "Boxes and the Jaccard overlap" in titles[4]  # after chapter 1, the playground and the reader's photograph
    assert len(titles) == len(print_book.pages(site))
    text = "".join(page.extract_text() for page in printed.pages[:40])
    assert "Who it is for" in text  # the first page of the book
    assert "Solution to" not in text
