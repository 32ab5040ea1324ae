from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.data import names
from ssdlib.data.names import check_file_name, check_name, counted, printable, said, shown

HARMFUL = {
    "colours": "\x1b[31mred",
    "title of the window": "\x1b]0;owned\x07",
    "8-bit control": "\x9b31m",
    "another line": "cat\nok",
    "back to the beginning": "cat\rdog",
    "null": "cat\0",
    "separator of lines": "cat\u2028ok",
    "from right to left": "cat\u202egpj.exe",
    "half a surrogate pair": "\ud800",
    "a byte that is no UTF-8": b"\xff".decode("utf-8", "surrogateescape"),
}
GOOD = ["cat", "traffic light", "猫", "größer", "می‌خواهم", "👨‍👩‍👧", "$\\frac$", "<b>"]


@pytest.mark.parametrize("check", [check_name, check_file_name])
@pytest.mark.parametrize("name", HARMFUL.values(), ids=HARMFUL.keys())
def test_what_a_terminal_would_obey_is_refused_and_shown_as_escapes(name: str, check: Any):
    with pytest.raises(
        ValueError, match=r"^the class .* has a control character, or one that cannot be shown"
    ) as caught:
        check(name, "the class")
    str(caught.value).encode("utf-8")
    assert printable(caught.value) == str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["", " ", "\t\n", "\u3000"])
def test_empty_and_blank_names_are_refused(name: str):
    with pytest.raises(ValueError, match=r"the class '.*' is empty"):
        check_name(name, "the class")


@pytest.mark.parametrize("name", [None, 3, b"cat", ["cat"]])
def test_only_texts_are_names(name: Any):
    with pytest.raises(ValueError, match="the class must be a text, got"):
        check_name(name, "the class")


def test_names_without_end_are_refused():
    assert check_name("x" * 255, "the class")
    with pytest.raises(ValueError, match=r"^the class 'xxx.*x\.\.\. has 256 characters, more than 255$"):
        check_name("x" * 256, "the class")
    assert check_file_name(f"sub/{'é' * 127}", "the file")
    with pytest.raises(ValueError, match=r"^the file 'sub/é.*é\.\.\.|' has a part of more than 255 bytes$"):
        check_file_name(f"sub/{'é' * 128}", "the file")


@pytest.mark.parametrize("name", GOOD)
def test_names_of_any_script_are_good(name: str):
    assert check_name(name, "the class") == name
    assert check_file_name(f"sub/{name}.jpg", "the file") == f"sub/{name}.jpg"
    assert printable(name) == name


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/etc/passwd", r"..\a", r"a\..\b", r"C:\a", "C:a", r"\\host\share"]
)
def test_file_names_stay_in_their_folder_on_any_system(name: str):
    with pytest.raises(ValueError, match="leads out of the data set"):
        check_file_name(name, "the file")


@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_whatever_is_printed_is_one_clean_line(text: str):
    line = printable(text)
    assert len(f"{line}.".splitlines()) == 1
    line.encode("utf-8")
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in line)
    assert printable(line) == line


@given(name=st.text(alphabet="aZ_9-+./\\: ", max_size=8) | st.integers(250, 260).map("x".__mul__))
def test_the_short_way_for_plain_names_is_that_of_the_rules(name: str):
    def outcome() -> str:
        try:
            return check_file_name(name, "the file")
        except ValueError as error:
            return f"refused: {error}"

    short = outcome()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(names, "_PLAIN", re.compile("(?!)"))  # matches nothing
        assert outcome() == short


def test_values_in_messages_are_short():
    assert shown("cat") == "'cat'"
    assert len(shown("x" * 10**6)) < 300
    deep: list[Any] = []
    for _ in range(10**5):
        deep = [deep]
    assert shown(deep) == "a list of great depth"


def test_what_a_library_says_is_clean_and_short():
    assert said(ValueError("no\x1b[31m")) == r"no\x1b[31m"
    assert said("x" * 1000) == "x" * 1000
    assert said("x" * 1001) == "x" * 1000 + "..."


def test_counted():
    counts = [counted(0, "image"), counted(1, "image"), counted(2500, "image"), counted(2, "box", "boxes")]
    assert counts == ["0 images", "1 image", "2,500 images", "2 boxes"]
    assert counted(1, "box", "boxes") == "1 box"
