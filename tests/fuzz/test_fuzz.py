"""A small budget of every area of the fuzzer, always the same cases, and what the fuzzer itself must notice."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import fuzz_areas, fuzzing
from support.repository import ROOT

AREAS = {area.name: area for area in fuzz_areas.AREAS}

FOUND = [
    ("annotations", 222),  # an id of 5,000 characters: a message of 5,000 characters
    ("coco", 12405),  # a file name longer than the system allows: the file of annotations was not named
    ("downloads", 21),  # a redirection whose body has no end was read, or could not be
    ("downloads", 50014),  # all that a server says in its first line in a message
    ("widgets", 63652),  # classes taken away whose labels are there
    ("widgets", 32),  # labels that are True, which a tensor takes for another type
    ("config", 3052),  # a field with a name of 5,000 characters: a message of 5,000 characters
    ("state", 2225),  # bytes of the file in the message of PyTorch, as they are
    ("state", 18448),  # a message of PyTorch in bold letters
    ("state", 57589),  # a tensor of one number with a stride of 17
    ("labels", 167),  # a name in the list of classes that turns the direction of writing: a folder that we refuse
    ("labels", 101094),  # a file name of 5,000 characters in COCO's labels: a message of 5,059
    ("labels", 102900),  # the same in YOLO's data.yaml
    ("archives", 163),  # a time that no system can set
]
"""Cases that failed once, by area and seed."""


@pytest.mark.slow
@pytest.mark.parametrize("name", AREAS)
def test_a_few_cases_of_each_area(name: str) -> None:
    area = AREAS[name]
    result = fuzzing.run(area, cases=area.few)
    assert not result.failures, f"{area.name}, seed {result.failures[0][0]}\n{result.failures[0][1][-3000:]}"
    assert sum(result.outcomes.values()) == area.few
    assert result.outcomes["accepted"], "no case came through: the area tests nothing but the first check"


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_was_found_stays_mended(name: str, seed: int) -> None:
    fuzzing.one(AREAS[name], seed)


def crash(_rng: random.Random, _folder: Path) -> str:
    raise KeyError("an error that is not documented")


def name_nothing(_rng: random.Random, folder: Path) -> str:
    def action() -> None:
        raise ValueError("somewhere something is wrong")

    return str(fuzzing.refused(action, folder))


def print_controls(_rng: random.Random, folder: Path) -> str:
    def action() -> None:
        raise ValueError(f"{folder}: \x1b[31m")

    return str(fuzzing.refused(action, folder))


def swallow(_rng: random.Random, _folder: Path) -> str:
    return "accepted" if len(bytearray(400 << 20)) else ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "message"),
    [
        (crash, "KeyError"),
        (name_nothing, "are not all named: somewhere"),
        (print_controls, r"\\x1b\[31m"),
        pytest.param(
            swallow,
            "took .* MB",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="an earlier peak may hide it"),
        ),
    ],
)
def test_the_fuzzer_notices(case: fuzzing.Case, message: str) -> None:
    bytearray(600 << 20)  # a peak before the case: it must not hide the case's own
    result = fuzzing.run(fuzzing.Area("bad", case, seconds=20, megabytes=100), cases=1, seed=7)
    assert result.outcomes == {"FAILED": 1}
    ((seed, trace),) = result.failures
    assert seed == 7
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(trace)


def test_the_fuzzer_notices_a_case_without_end() -> None:
    """In a process of its own: an alarm is no guest in one that has run a browser and other libraries' threads."""
    program = """
import sys, time
sys.path.insert(0, sys.argv[1])
from support import fuzzing

def hang(_rng, _folder):
    try:
        time.sleep(60)
    except Exception:
        pass
    return "accepted"

result = fuzzing.run(fuzzing.Area("bad", hang, seconds=0.5), cases=1, seed=7)
print(dict(result.outcomes), result.failures[0][1].splitlines()[-1])
"""
    command = [sys.executable, "-c", program, str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.match(r"{'FAILED': 1} .*(not done after|took)", done.stdout), done.stdout


def test_a_case_is_the_same_every_time() -> None:
    first, second = (fuzzing.value(random.Random("x 1")) for _ in range(2))
    assert repr(first) == repr(second)
    assert fuzzing.mutated_bytes(random.Random(3), b"abc" * 9) == fuzzing.mutated_bytes(random.Random(3), b"abc" * 9)


@pytest.mark.slow
def test_the_command_for_long_runs() -> None:
    command = [sys.executable, str(ROOT / "tests" / "fuzz" / "run.py"), "--area", "matching", "--area", "config"]
    done = subprocess.run([*command, "--cases", "5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:3] for line in done.stdout.splitlines()] == [
        ["matching", "5", "cases"],
        ["config", "5", "cases"],
    ]
