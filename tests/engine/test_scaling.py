from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdlib.engine.scaling import Links, all_reduce_seconds, step_seconds

LINKS = Links(inside=100.0, between=10.0, latency=0.5, per_machine=4)


def ring(gradients: torch.Tensor) -> tuple[torch.Tensor, list[int], int]:
    """The algorithm itself, message by message: the sums (n, m), numbers that each sends, and rounds."""
    count = len(gradients)
    parts = [list(row.chunk(count)) for row in gradients]
    sent, rounds = [0] * count, 0
    for adding in (True, False):
        for turn in range(count - 1):
            messages = [(rank, (rank - turn + (0 if adding else 1)) % count) for rank in range(count)]
            payloads = [parts[rank][part].clone() for rank, part in messages]
            for (rank, part), payload in zip(messages, payloads, strict=True):
                neighbour = (rank + 1) % count
                parts[neighbour][part] = parts[neighbour][part] + payload if adding else payload
                sent[rank] += len(payload)
            rounds += 1
    return torch.stack([torch.cat(row) for row in parts]), sent, rounds


@given(gpus=st.integers(1, 9), each=st.integers(1, 4))
def test_the_time_is_that_of_the_messages_of_a_ring(gpus: int, each: int):
    gradients = torch.randint(-9, 9, (gpus, gpus * each))
    sums, sent, rounds = ring(gradients)
    assert torch.equal(sums, gradients.sum(dim=0).expand(gpus, -1))
    slowest = LINKS.inside if gpus <= 4 else LINKS.between
    expected = max(sent) * 4 / slowest + rounds * LINKS.latency
    assert all_reduce_seconds(gpus * each, gpus, LINKS) == pytest.approx(expected)


def test_one_needs_nobody_and_many_send_no_more_than_twice_the_gradient():
    free = Links(inside=1e9, between=1e9, latency=0.0)
    assert all_reduce_seconds(26e6, 1, free) == 0
    times = [all_reduce_seconds(26e6, gpus, free) for gpus in (2, 4, 8, 64, 4096)]
    assert times == sorted(times)
    assert times[0] == pytest.approx(26e6 * 4 / 1e9)
    assert times[-1] < 2 * times[0]
    assert all_reduce_seconds(26e6, 8, free, bytes_each=2) == pytest.approx(times[2] / 2)


@given(reduce=st.floats(0, 10), overlap=st.floats(0, 1))
def test_what_travels_while_others_are_computed_costs_nothing(reduce: float, overlap: float):
    step = step_seconds(3.0, reduce, overlap)
    assert 3.0 <= step <= 3.0 + reduce
    assert step == 3.0 or math.isclose(step, 3.0 + reduce - 3.0 * overlap)
    assert step_seconds(3.0, reduce) == 3.0 + reduce


def test_what_cannot_be():
    for gpus, links in ((0, LINKS), (2, Links(0.0, 1.0)), (2, Links(1.0, -1.0))):
        with pytest.raises(ValueError, match="cannot add anything up"):
            all_reduce_seconds(1.0, gpus, links)
    for overlap in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"overlap must be in \[0, 1\]"):
            step_seconds(1.0, 1.0, overlap)
