"""Every page of the built site works from its file, and for readers who cannot see, point or tell colours."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.browser import OpenPage, violations, violations_of_contrast
from support.site import pages, wait_until_live

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_every_page_is_accessible(site: Path, chapters: dict[str, list[str]], open_page: OpenPage) -> None:
    """In dark mode only the colours are others."""
    for path in pages(site):
        page = open_page(path.as_uri())
        wait_until_live(page, len(chapters.get(path.name, [])))
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        found = violations(page, options={"rules": {"color-contrast": {"enabled": False}}})
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.wait_for_function("theme => document.documentElement.dataset.theme === theme", arg=theme)
            page.wait_for_function("document.getAnimations().every((one) => one.playState === 'finished')")
            found += [f"{theme}: {what}" for what in violations_of_contrast(page)]
        assert not found, "\n".join([f"{path.name}:", *found])
        page.close()


def test_a_text_that_can_hardly_be_read_is_seen_among_many(open_page: OpenPage, tmp_path: Path) -> None:
    """The test above looks at a few texts of each kind: what is behind a text is a part of its kind."""
    text = "<p>to be read</p>" * 9 + "<p style='background: #777'>on gray <b>in bold</b></p>" + "<p>again</p>" * 9
    path = tmp_path / "page.html"
    path.write_text(f"<html><body style='color: #555; background: white'>{text}", encoding="utf-8")
    page = open_page(path.as_uri())
    assert len(violations(page, options={"runOnly": ["color-contrast"]})) == 2
    assert len(violations_of_contrast(page)) == 2
