"""Answers to the code exercise of the chapter on latency, as readers write them: right ones and wrong ones."""

from __future__ import annotations

import heapq

import numpy as np


def search_the_first(arrivals, services, servers):
    free, done = [0.0] * servers, []
    for arrival, service in zip(arrivals, services, strict=True):
        first = free.index(min(free))
        free[first] = max(arrival, free[first]) + service
        done.append(free[first])
    return done


def heap(arrivals, services, servers):
    free, done = [0] * servers, []
    for arrival, service in zip(arrivals, services, strict=True):
        end = max(arrival, heapq.heappop(free)) + service
        heapq.heappush(free, end)
        done.append(end)
    return np.array(done)


def never_idle(arrivals, services, servers):
    free, done = [0.0] * servers, []
    for service in services:
        first = int(np.argmin(free))
        free[first] += service
        done.append(free[first])
    return done


def never_waits(arrivals, services, servers):
    return [arrival + service for arrival, service in zip(arrivals, services, strict=True)]


def one_server(arrivals, services, servers):
    return search_the_first(arrivals, services, 1)


def in_turn(arrivals, services, servers):
    free, done = [0.0] * servers, []
    for k, (arrival, service) in enumerate(zip(arrivals, services, strict=True)):
        free[k % servers] = max(arrival, free[k % servers]) + service
        done.append(free[k % servers])
    return done


def sorted_ends(arrivals, services, servers):
    return sorted(search_the_first(arrivals, services, servers))


def latencies(arrivals, services, servers):
    return [end - arrival for end, arrival in zip(heap(arrivals, services, servers), arrivals, strict=True)]


def beginnings(arrivals, services, servers):
    return [end - service for end, service in zip(heap(arrivals, services, servers), services, strict=True)]


ANSWERS = {
    "check_departures": (
        [search_the_first, heap],
        [
            (never_idle, "cannot begin before it is there"),
            (never_waits, "waits until a server is free"),
            (one_server, "there are several servers"),
            (in_turn, "not to the next one in turn"),
            (sorted_ends, "in the order of arrival"),
            (latencies, "not how long after its arrival"),
            (beginnings, "not the one at which it begins"),
        ],
    )
}
