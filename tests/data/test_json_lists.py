"""Lists of a JSON file, entry by entry: the same as from a parser that has all of it, wherever a piece of it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.data import json_lists
from ssdlib.data.json_lists import read_lists

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "list", "}", "]", "\u00e9"]), VALUES, max_size=5)


def lists_of(file: Path, *names: str) -> dict[str, list[Any]]:
    """The lists as they are read."""
    read: dict[str, list[Any]] = {name: [] for name in names}

    def taking(name: str) -> Any:
        def take(index: int, entry: Any) -> None:
            assert index == len(read[name])
            read[name].append(entry)

        return take

    found = read_lists(file, {name: taking(name) for name in names})
    return {name: entries for name, entries in read.items() if name in found}


@given(content=OBJECTS, indent=st.sampled_from([None, 0, 3]), plain=st.booleans(), piece=st.sampled_from([1, 3, 2**23]))
def test_as_a_parser_that_has_all_of_it(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], indent: int | None, plain: bool, piece: int
):
    file = tmp_path_factory.getbasetemp() / "any.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=plain), encoding="utf-8", errors="surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "_PIECE", piece)
        read = lists_of(file, "list", "b")
    assert read == {name: value for name, value in content.items() if name in ("list", "b") and isinstance(value, list)}


@pytest.mark.parametrize("piece", [1, 2**23])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": [1, 2', "no comma or bracket after entry 1, but ''"),
        ('{"a": [1 2]}', "no comma or bracket after entry 0, but '2]}'"),
        ('{"a": [1,]}', "Expecting value: ']}'"),
        ('{"a": [{"b": 1]}', "Expecting ',' delimiter: ']}'"),
        ('{"a": [1]', "no comma or brace after 'a'"),
        ('{"a": [1]} {', "more follows after its end: '{'"),
        ('{"a": [1], "a": [2]}', "the list 'a' stands twice"),
        ('{"a" [1]}', "'a' is no name with a colon"),
        ("{1: [1]}", "1 is no name with a colon"),
        ('{"c": [1, 2}', "no comma or bracket after entry 1, but '}'"),
        ('{"c": {"d": 1]}', "Expecting ',' delimiter: ']}'"),
        ('{"a": [1],}', "Expecting value: '}'"),
        ('{"c": "a', "Unterminated string"),
        ("[1, 2", "Expecting ',' delimiter: ''"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str, piece: int):
    monkeypatch.setattr(json_lists, "_PIECE", piece)
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"file\.json: not readable as JSON: ") as caught:
        lists_of(file, "a")
    assert message in str(caught.value)
    with pytest.raises(ValueError):  # noqa: PT011  # or else it is nothing to refuse, but for a list that is there twice
        json.loads(text if "stands twice" not in message else "")


def test_only_what_is_not_yet_read_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_lists, "_PIECE", 1000)
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"b": [{}] * 9000, "a": [{"number": number} for number in range(5000)]}))
    longest = 0

    class Watched(json_lists._Text):
        def more(self, pieces: int = 1) -> bool:
            nonlocal longest
            there = super().more(pieces)
            longest = max(longest, len(self.text))
            return there

    monkeypatch.setattr(json_lists, "_Text", Watched)
    assert len(lists_of(file, "a")["a"]) == 5000
    assert 900 < longest < 1200


def test_what_is_large_is_not_parsed_for_each_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(json_lists, "_PIECE", 100)
    tried = 0

    def counting(text: str, at: int) -> tuple[Any, int]:
        nonlocal tried
        tried += 1
        return json.JSONDecoder().raw_decode(text, at)

    monkeypatch.setattr(json_lists, "_decode", counting)
    file = tmp_path / "file.json"
    file.write_text(json.dumps({"b": {"c": [{} for _ in range(25_000)]}, "a": [1, 2]}))  # a thousand pieces
    assert lists_of(file, "a") == {"a": [1, 2]}
    assert tried < 20
