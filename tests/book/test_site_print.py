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
    assert titles[:3] == ["SSD from scratch", *titles[1:3]]
    assert "Boxes and the Jaccard overlap" in titles[3]  # after chapter 1 and the playground
    assert len(titles) == len(print_book.pages(site))
    text = "".join(page.extract_text() for page in printed.pages[:40])
    assert "Who it is for" in text  # the first page of the book
    assert "Solution to" not in text
