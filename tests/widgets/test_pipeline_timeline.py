"""PipelineTimeline: its checks in Python, and on a page the arithmetic, the sliders and what is said."""

from __future__ import annotations

import doctest
from itertools import product

import pytest
from playwright.sync_api import Page
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.deploy.pipeline import pipeline, steady
from ssdlib.widgets import PipelineTimeline, pipeline_timeline
from ssdlib.widgets.base import read_static

SOURCE = read_static("pipeline_timeline.mjs").replace("export default { render };", "")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("in_flight", 0, "in_flight"),
        ("in_flight", 9, "in_flight"),
        ("frames", 1, "frames"),
        ("stages", [], "stages"),
        ("stages", [{"name": "read", "milliseconds": 0}], "1 to 60 milliseconds"),
        ("stages", [{"name": "read", "milliseconds": True}], "1 to 60 milliseconds"),
        ("stages", [{"name": "read"}], "must have a name and"),
        ("stages", [{"name": "a", "milliseconds": 1}] * 4, "stages"),
    ],
)
def test_bad_values_are_refused_at_once(name: str, value: object, message: str) -> None:
    timeline = PipelineTimeline()
    before = timeline.state()
    with pytest.raises(TraitError, match=message):
        setattr(timeline, name, value)
    assert timeline.state() == before


def test_example_runs() -> None:
    assert doctest.testmod(pipeline_timeline).failed == 0


def test_picture_and_words() -> None:
    timeline = PipelineTimeline(in_flight=4)
    assert "With 4 in flight 33.3 frames come out in a second, and a frame takes 120 ms" in timeline.describe()
    assert len(timeline.to_html()) < 30_000


@pytest.mark.browser
def test_the_page_computes_what_the_library_does(open_page: OpenPage) -> None:
    cases = [
        ([float(a), float(b), float(c)], flying)
        for a, b, c, flying in product((5, 20, 60), (10, 35), (5, 55), (1, 2, 3, 8))
    ]
    there = open_page("about:blank#//").evaluate(
        f"""(cases) => {{
            const [pipeline, steady] = new Function({SOURCE!r} + "; return [pipeline, steady]")();
            return cases.map(([stages, flying]) => [pipeline(stages, flying, 12), steady(stages, flying)]);
        }}""",
        [list(case) for case in cases],
    )
    for (stages, flying), (times, comes_to) in zip(cases, there, strict=True):
        taken, spans = pipeline(stages, flying, 12)
        assert times == {"taken": taken.tolist(), "spans": spans.tolist()}
        for name, value in steady(stages, flying).items():
            assert comes_to[name] == pytest.approx(value)


def figures(page: Page) -> list[str]:
    return page.locator(".ssd-readout dd").all_inner_texts()


@pytest.mark.browser
def test_sliders_by_key_and_state_from_python(show: OpenPage) -> None:
    page = show(PipelineTimeline())
    assert figures(page) == ["20.0", "50 ms", "20.0 × 0.050 = 1.0", "compute, 60 % of the time"]
    flying = page.get_by_role("slider", name="frames in flight")
    flying.press("ArrowRight")
    assert state_of(page, "in_flight") == 2
    assert figures(page)[:2] == ["33.3", "60 ms"]
    page.get_by_role("slider", name="3 draw").press("End")
    assert state_of(page, "stages")[2] == {"name": "draw", "milliseconds": 60}
    assert figures(page) == ["16.7", "120 ms", "16.7 × 0.120 = 2.0", "draw, 100 % of the time"]
    page.wait_for_function("document.querySelector('[role=status]').textContent.includes('draw is busy 100 percent')")
    set_state(page, "in_flight", 8)
    assert figures(page)[0] == "16.7"
    ends = page.eval_on_selector_all(
        ".ssd-stage rect", "all => all.map(e => e.x.baseVal.value + e.width.baseVal.value)"
    )
    assert len(ends) == 24
    assert max(ends) <= 400
    page.get_by_role("button", name="Reset").click()
    assert figures(page)[:2] == ["20.0", "50 ms"]


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_for_all_readers_and_on_a_phone(show: OpenPage, theme: str) -> None:
    widget = PipelineTimeline(stages=[{"name": "<img src=x onerror=alert(1)>", "milliseconds": 20}])
    assert violations(show(widget, theme=theme)) == []
    page = show(widget, theme=theme, width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator(".ssd-widget img").count() == 0
    assert min(page.eval_on_selector_all("input[type=range]", "all => all.map(e => e.offsetHeight)")) >= 44
