"""Quiz: what is refused, what Python sees, and the page by mouse and by keyboard, with a reply to every answer."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from support.browser import OpenPage, set_state, state_of, violations
from traitlets import TraitError

from ssdlib.widgets import Quiz
from ssdlib.widgets.base import open_url

QUESTIONS = [
    {
        "question": "Which shape has `iou(a, b)` for (N, 4) and (M, 4)?",
        "answers": [
            {"text": "(N, M)", "right": True, "why": "A row for each box of `a`."},
            {"text": "(N,)", "right": False, "why": "That is one number for each *pair in order*."},
            {"text": "(N, 4)", "right": False, "why": "An overlap is one number, not four."},
        ],
    },
    {
        "question": "Which label has the background?",
        "answers": [
            {"text": "-1", "right": False, "why": "-1 marks a prior without an object."},
            {"text": "0", "right": True, "why": "Objects count from 1."},
        ],
    },
]


def changed(change: Any) -> list[dict[str, Any]]:
    """The questions, after `change` was made to a copy of the first."""
    questions = copy.deepcopy(QUESTIONS)
    change(questions[0])
    return questions


@pytest.mark.parametrize(
    ("questions", "message"),
    [
        ([], "at least one question"),
        ("Why?", "at least one question"),
        (changed(lambda q: q.update(question=" ")), "the text of question 1 must not be empty"),
        (changed(lambda q: q.update(question="`iou")), "the text of question 1 has a backtick without a partner"),
        (changed(lambda q: q.pop("answers")), r"question 1 must be a dictionary with \['answers', 'question'\]"),
        (changed(lambda q: q.update(answers=q["answers"][:1])), "question 1 needs at least two answers"),
        (changed(lambda q: q["answers"][1].update(right=True)), "exactly one right answer; it has 2"),
        (changed(lambda q: q["answers"][0].update(right=False)), "exactly one right answer; it has 0"),
        (changed(lambda q: q["answers"][0].update(right=1)), "right of answer a of question 1 must be True or False"),
        (changed(lambda q: q["answers"][2].update(why="")), r"the reply \(why\) to answer c of question 1"),
        (changed(lambda q: q["answers"][2].pop("why")), "answer c of question 1 must be a dictionary"),
        (changed(lambda q: q["answers"][1].update(text="")), "the text of answer b of question 1"),
    ],
)
def test_flawed_questions_are_refused(questions: Any, message: str) -> None:
    with pytest.raises(TraitError, match=message):
        Quiz(questions)


@pytest.mark.parametrize("chosen", [[0], [0, 2], [-2, 0], [0, 0, 0], ["0", 0]])
def test_choices_that_do_not_exist_are_refused(chosen: list[Any]) -> None:
    quiz = Quiz(QUESTIONS, chosen=[1, 1])
    with pytest.raises(TraitError, match="chosen"):
        quiz.chosen = chosen
    assert quiz.chosen == [1, 1]
    with pytest.raises(TraitError, match="chosen"):
        Quiz(QUESTIONS, chosen=chosen)


def test_python_counts_right_answers_and_the_questions_stay_as_they_are() -> None:
    own = copy.deepcopy(QUESTIONS)
    quiz = Quiz(own)
    assert (quiz.chosen, quiz.num_right) == ([-1, -1], 0)
    quiz.chosen = [0, 0]
    assert quiz.num_right == 1
    quiz.chosen = [0, 1]
    assert quiz.num_right == 2
    own[0]["answers"][0]["right"] = False
    assert quiz.questions == QUESTIONS
    with pytest.raises(TraitError, match="read-only"):
        quiz.questions = own


def test_page_holds_the_questions_and_the_picture_does_not_tell_the_answers() -> None:
    quiz = Quiz(QUESTIONS)
    assert quiz.state() == {"chosen": [-1, -1], "questions": QUESTIONS, "title": "Check yourself"}
    text = quiz.describe()
    assert text.startswith("Check yourself. 1. Which shape has iou(a, b) for")
    assert "b) 0" in text
    assert all(answer["why"] not in text for question in QUESTIONS for answer in question["answers"])
    assert len(quiz.to_html()) < 40_000


def test_picture_shows_every_line_within_its_edges() -> None:
    long = changed(lambda q: q.update(question="What is $x_1^2$ of " + "a long sentence " * 20 + "?"))
    figure = Quiz(long).picture()
    renderer = FigureCanvasAgg(figure).get_renderer()
    lines = [text for text in figure.texts if text.get_text().strip()]
    assert len(lines) >= 2 + 5 + 3
    for line in lines:
        box = line.get_window_extent(renderer).transformed(figure.transFigure.inverted())
        assert 0 <= box.x0 < box.x1 <= 1, line.get_text()
        assert 0 <= box.y0 < box.y1 <= 1, line.get_text()


def test_picture_is_small() -> None:
    address = Quiz(QUESTIONS).to_html().split('src="')[1].split('"')[0]
    assert open_url(address).width > 500


browser = pytest.mark.browser


@browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_wrong_for_readers_who_cannot_see_or_point(show: OpenPage, theme: str) -> None:
    page = show(Quiz(QUESTIONS), Quiz(QUESTIONS, chosen=[1, 1]), theme=theme)
    assert violations(page) == []


@browser
def test_every_answer_has_its_reply(show: OpenPage) -> None:
    page = show(Quiz(QUESTIONS))
    replies = page.locator(".ssd-reply")
    assert replies.all_inner_texts() == ["", ""]
    for number, question in enumerate(QUESTIONS):
        for k, answer in enumerate(question["answers"]):
            page.locator(".ssd-question").nth(number).locator("label").nth(k).click()
            text = replies.nth(number).inner_text()
            assert text.startswith("✓ Right." if answer["right"] else "✗ Not right.")
            assert text.endswith(answer["why"].replace("`", ""))
            assert state_of(page, "chosen")[number] == k
    assert page.locator("label.ssd-right").all_inner_texts() == ["0"]
    page.wait_for_function("document.querySelector('.ssd-says').textContent === '1 of 2 right so far.'")
    assert page.locator(".ssd-question legend code").all_inner_texts() == ["iou(a, b)"]


@browser
def test_setting_the_choice_moves_the_page_and_groups_do_not_mix(show: OpenPage) -> None:
    page = show(Quiz(QUESTIONS), Quiz(QUESTIONS))
    set_state(page, "chosen", [0, 1], number=1)
    checked = page.eval_on_selector_all("input", "all => all.map(e => e.checked)")
    assert checked == [False] * 5 + [True, False, False, False, True]
    set_state(page, "chosen", [-1, -1], number=1)
    assert page.locator(".ssd-reply").all_inner_texts() == [""] * 4


@browser
def test_keyboard_alone_is_enough(show: OpenPage) -> None:
    page = show(Quiz(QUESTIONS))
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert state_of(page, "chosen") == [0, -1]
    page.keyboard.press("ArrowDown")
    assert state_of(page, "chosen") == [1, -1]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert state_of(page, "chosen") == [1, 1]


@browser
def test_texts_stay_texts(show: OpenPage) -> None:
    evil = "<img src=x onerror=alert(1)> `</script><b>`"
    questions = changed(lambda q: q.update(question=evil))
    questions[0]["answers"][0].update(text=evil, why=evil)
    page = show(Quiz(questions, chosen=[0, -1]))
    assert page.locator(".ssd-widget img").count() == 0
    assert page.locator(".ssd-question legend").first.inner_text() == "1. " + evil.replace("`", "")
    assert state_of(page, "questions") == questions


@browser
def test_fits_a_phone_and_targets_can_be_touched(show: OpenPage) -> None:
    long = changed(lambda q: q.update(question="`" + "a_very_long_name" * 6 + "`?"))
    page = show(Quiz(long, chosen=[1, 1]), width=360, height=740, has_touch=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    heights = page.eval_on_selector_all("label", "all => all.map(e => e.getBoundingClientRect().height)")
    assert len(heights) == 5
    assert all(math.ceil(height) >= 44 for height in heights)
