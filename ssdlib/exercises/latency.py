"""Checkers for the chapter on latency."""

from __future__ import annotations

import heapq

from ssdlib.exercises.checking import Answer, Case, Mistake, check


def check_departures(answer: Answer) -> None:
    """Check `departures(arrivals, services, servers)`: when each request is done, first come, first served.

    `arrivals` rise, `services` are as many durations, and `servers` is how many requests are served at a time.
    """
    check(answer, _cases(), _MISTAKES)


def _cases() -> list[Case]:
    lists: list[tuple[str, list[float], list[float], int]] = [
        ("a single request", [3.0], [2.0], 1),
        ("requests that never meet", [0.0, 10.0, 20.0], [2.0, 3.0, 4.0], 1),
        ("a request that waits for the one before", [0.0, 1.0], [5.0, 2.0], 1),
        ("a server that idles before the last request", [0.0, 1.0, 20.0], [5.0, 2.0, 1.0], 1),
        ("two servers, so that two requests are served together", [0.0, 1.0], [5.0, 2.0], 2),
        ("two servers, of which the second is free first", [0.0, 1.0, 2.0, 3.0], [9.0, 2.0, 2.0, 4.0], 2),
        ("a short request that ends before a long one, and keeps its place", [0.0, 1.0, 1.0], [10.0, 2.0, 1.0], 2),
        ("more servers than requests", [0.0, 0.0], [4.0, 6.0], 5),
        ("no request", [], [], 2),
    ]
    return [Case(what, (a, s, n), _departures(a, s, n)) for what, a, s, n in lists]


def _departures(
    arrivals: list[float],
    services: list[float],
    servers: int,
    *,
    idle: bool = True,
    alone: bool = False,
    in_turn: bool = False,
    by_end: bool = False,
    wait: bool = True,
) -> list[float]:
    """The right answer, with a switch for each thing that goes wrong."""
    free = [0.0] * (1 if alone else servers)
    done = []
    for number, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        begin = free[number % servers] if in_turn else heapq.heappop(free)
        end = (max(arrival, begin) if wait else arrival) + service if idle else begin + service
        if in_turn:
            free[number % servers] = end
        else:
            heapq.heappush(free, end)
        done.append(end)
    return sorted(done) if by_end else done


_MISTAKES = [
    Mistake(
        "a request cannot begin before it is there. A free server waits for it.",
        lambda *a: _departures(*a, idle=False),
    ),
    Mistake("a request waits until a server is free.", lambda *a: _departures(*a, wait=False)),
    Mistake("there are several servers.", lambda *a: _departures(*a, alone=True)),
    Mistake(
        "a request goes to the server that is free first, not to the next one in turn.",
        lambda *a: _departures(*a, in_turn=True),
    ),
    Mistake("the times belong to the requests, in the order of arrival.", lambda *a: _departures(*a, by_end=True)),
    Mistake(
        "asked for is the time at which each request is done, not how long after its arrival that is.",
        lambda *a: [done - arrival for done, arrival in zip(_departures(*a), a[0], strict=True)],
    ),
    Mistake(
        "asked for is the time at which each request is done, not the one at which it begins.",
        lambda *a: [done - service for done, service in zip(_departures(*a), a[1], strict=True)],
    ),
]
