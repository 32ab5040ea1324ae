"""Sentences of the text that set a widget: the role, its checks, and the button by pointer, key and finger."""

from __future__ import annotations

import json
import re
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import plain_markdown
import pytest
import torch
from plain_markdown import Words
from pybtex.database import BibliographyData
from support.browser import OpenPage, set_state, state_of, violations
from widget_pages import SCRIPT, STYLE, bundle, style_sheet
from widget_sentences import FORM, PLACE, missing

from ssdlib.widgets import EncodingPlayground, JaccardPlayground, PriorExplorer

if TYPE_CHECKING:
    from playwright.sync_api import Page

BOOK = Path(__file__).resolve().parents[2] / "book"
ROLE = re.compile(r"\{sets\}`([^`]+)`")
THIRDS = {"box_a": [60, 60, 180, 140], "box_b": [100, 60, 220, 140]}


def sentence(traits: dict[str, Any], module: str = "jaccard") -> str:
    return f'<span class="ssd-sets" data-module="{module}" data-traits="{escape(json.dumps(traits))}">two thirds</span>'


def sentences() -> list[tuple[str, str, str, dict[str, Any]]]:
    """All that the chapters have: file, words, module, traits."""
    found = []
    for path in sorted(BOOK.glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            for text in ROLE.findall(cell.source) if cell.cell_type == "markdown" else []:
                parts = FORM.fullmatch(" ".join(text.split()))
                assert parts is not None, f"{path.name}: {text}"
                found.append((path.name, parts["words"], parts["module"], json.loads(parts["traits"])))
    return found


def test_chapters_2_to_7_set_their_widgets() -> None:
    assert {name[:2] for name, *_ in sentences()} >= {f"0{number}" for number in range(2, 8)}


def test_what_is_set_is_what_the_widget_allows() -> None:
    scene = torch.zeros(3, 20, 20, dtype=torch.uint8)
    alone: dict[str, Any] = {"jaccard": JaccardPlayground, "encoding_playground": EncodingPlayground}
    alone["prior_explorer"] = partial(PriorExplorer, scene)
    for name, words, module, traits in sentences():
        texts = [
            output.data["text/html"]
            for cell in nbformat.read(BOOK / name, as_version=4).cells
            for output in cell.get("outputs", [])
            if f'data-module="{module}"' in output.get("data", {}).get("text/html", "")
        ]
        assert texts, (name, words)
        state = json.loads(PLACE.findall(texts[0])[0][1])
        for trait, value in traits.items():
            assert trait in state, (name, words, trait)
            kinds = (bool, list, str, (int, float))
            assert any(isinstance(value, kind) and isinstance(state[trait], kind) for kind in kinds), (name, words)
        if module in alone:
            widget = alone[module]()
            for trait, value in traits.items():
                setattr(widget, trait, value)  # raises where a widget may not be set so


def test_a_sentence_for_nothing_is_named() -> None:
    place = JaccardPlayground().to_html()
    assert missing(place + sentence(THIRDS)) == []
    assert missing(place + sentence({"box_c": 1})) == ["'jaccard' has no box_c"]
    assert missing(place + sentence({"cell": [1, 1]}, "prior_explorer")) == [
        "no widget 'prior_explorer' stands on the page"
    ]


def test_in_notebook_editors_it_is_words() -> None:
    words = Words({}, {}, BibliographyData(), {}, {}, lambda file: None)
    text = 'For 0.5 {sets}`two\nthirds <jaccard {"box_a": [1, 2, 3, 4]}>` must be shared.'
    assert plain_markdown.plain(text, words) == "For 0.5 two thirds must be shared."


@pytest.mark.browser
class TestInTheBrowser:
    """The sentence on a page with the widget."""

    @pytest.fixture
    def opened(self, open_page: OpenPage, tmp_path: Path) -> Any:
        def open_(**options: Any) -> Page:
            (tmp_path / SCRIPT).write_text(bundle(), encoding="utf-8")
            (tmp_path / STYLE).write_text(style_sheet(), encoding="utf-8")
            (tmp_path / "page.html").write_text(
                f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>A sentence</title>'
                f'<meta name="viewport" content="width=device-width, initial-scale=1">'
                f'<link rel="stylesheet" href="{STYLE}"><script src="{SCRIPT}" defer></script></head><body><main>'
                f"<h1>A sentence</h1>{JaccardPlayground().to_html()}<p style='margin-top: 1500px'>For 0.5 "
                f"{sentence(THIRDS)} must be shared.</p></main></body></html>",
                encoding="utf-8",
            )
            return open_page((tmp_path / "page.html").as_uri(), **options)

        return open_

    @pytest.mark.parametrize("way", ["pointer", "key", "finger"])
    def test_it_sets_the_widget_and_shows_it(self, opened: Any, way: str) -> None:
        page = opened(width=320 if way == "finger" else 1280, has_touch=way == "finger", reduced_motion="reduce")
        button = page.get_by_role("button", name="two thirds")
        button.scroll_into_view_if_needed()
        if way == "key":
            button.focus()
            page.keyboard.press("Enter")
        else:
            button.tap() if way == "finger" else button.click()
        assert state_of(page, "box_b") == THIRDS["box_b"]
        page.wait_for_function(
            "(() => { const { top, bottom } = document.querySelector('.ssd-widget').getBoundingClientRect();"
            " return bottom > 0 && top >= 0 && top < innerHeight / 2 })()"
        )
        page.wait_for_function("document.querySelector('[role=status]').textContent.includes('IoU 0.500')")
        set_state(page, "box_b", [0, 0, 10, 10])
        button.evaluate("node => node.click()")
        assert state_of(page, "box_b") == THIRDS["box_b"]  # again, and again
        assert not violations(page)

    def test_it_is_words_on_paper_and_without_scripts(self, opened: Any) -> None:
        page = opened()
        page.emulate_media(media="print")
        button = page.get_by_role("button", name="two thirds")
        assert button.evaluate("b => getComputedStyle(b).borderBottomWidth") == "0px"
        page = opened(java_script_enabled=False)
        assert page.get_by_text("two thirds").is_visible()
        assert page.get_by_role("button", name="two thirds").count() == 0
