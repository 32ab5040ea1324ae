"""What chapters need besides the library: glued numbers, and results that were recorded before."""

from __future__ import annotations

import json

import pytest

from ssdlib import book
from ssdlib.book import RECORDS, glue, recorded


def test_every_record_is_read_by_its_name():
    files = sorted(RECORDS.glob("*.json"))
    assert {"speed", "tiny_toy"} <= {path.stem for path in files}
    for path in files:
        assert recorded(path.stem) == json.loads(path.read_text(encoding="utf-8"))
        assert {"command", "commit", "date", "hardware"} <= recorded(path.stem).keys()


@pytest.mark.parametrize("name", ["tiny_moon", "", "speed.json"])
def test_missing_record_is_named_with_those_that_there_are(name):
    with pytest.raises(FileNotFoundError, match=f"no record {name!r} in .*records; there are accuracy, .*tiny_toy"):
        recorded(name)


def test_glued_value_reads_as_it_was_written(monkeypatch):
    shown = []
    monkeypatch.setattr(book, "display", lambda data, **options: shown.append((data, options)))
    glue("priors_all", "8,732")
    ((data, options),) = shown
    prefix = options["metadata"]["scrapbook"]["mime_prefix"]
    assert options["metadata"]["scrapbook"]["name"] == "priors_all"
    assert data == {f"{prefix}text/plain": "'8,732'"}  # a literal of Python: without quotes it would be a pair
