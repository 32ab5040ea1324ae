"""Arithmetic of several GPUs: how long it takes to add up their gradients."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Links:
    """What joins the GPUs of a run: bytes a second of each GPU in one direction, and seconds until a message arrives.

    Attributes:
        inside: bytes a second between the GPUs of a machine.
        between: bytes a second from a machine to the next, for the ring that runs through all of them.
        latency: seconds that each message takes on top of its bytes.
        per_machine: GPUs of a machine.
    """

    inside: float
    between: float
    latency: float = 5e-6
    per_machine: int = 8


def all_reduce_seconds(numbers: float, gpus: int, links: Links, bytes_each: int = 4) -> float:
    """Least time in which every GPU gets the sum of the gradients of all.

    In a ring each GPU has 1/n of the sum to end with. In n - 1 rounds it passes a part on to its neighbour, who adds
    his own; in n - 1 more the finished parts go round. So each sends 2 (n - 1) / n times the bytes of a gradient, which
    is never more than twice of them, however many GPUs there are; but the number of messages grows with them.

    Args:
        numbers: of the gradient, such as 26 million of SSD300.
        gpus: how many there are.
        links: what joins them; the slowest link of the ring decides.
        bytes_each: of a number, 4 in float32.

    Returns:
        Seconds; 0 for one GPU.

    Raises:
        ValueError: there is no GPU, or a bandwidth is not above 0.

    Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009).
    """
    if gpus < 1 or min(links.inside, links.between) <= 0:
        raise ValueError(f"{gpus} GPUs with {links} cannot add anything up")
    bandwidth = links.inside if gpus <= links.per_machine else min(links.inside, links.between)
    rounds = 2 * (gpus - 1)
    return rounds * (numbers * bytes_each / gpus / bandwidth + links.latency)


def step_seconds(compute: float, reduce: float, overlap: float = 0.0) -> float:
    """Time of a step whose gradients are added up while the backward pass still computes others.

    Args:
        compute: seconds of a step without any other GPU.
        reduce: seconds of :func:`all_reduce_seconds`.
        overlap: the fraction of `compute` in which gradients can travel: at most that of the backward pass, about two
            thirds.

    Raises:
        ValueError: if `overlap` is not in [0, 1].
    """
    if not 0 <= overlap <= 1:
        raise ValueError(f"overlap must be in [0, 1], got {overlap}")
    return compute + max(0.0, reduce - overlap * compute)
