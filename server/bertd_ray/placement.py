"""How many actors a pool has, with how many lanes, and how much of a node each claims; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Placement:
    """A pool of actors.

    Attributes:
        actors: in the cluster.
        lanes: of each.
        claim: CPUs that Ray counts as taken by each.
    """

    actors: int
    lanes: int
    claim: int


def place(
    cpus: Sequence[float],
    actors: int | None = None,
    lanes: int | None = None,
    *,
    checkpoints: bool = False,
) -> Placement:
    """One actor for each node, whose lanes are all its CPUs; not all of them are claimed.

    A pool that claims every CPU of a cluster leaves none to the tasks that read its input, and Ray
    waits without a word. With checkpoints a job that goes on has an actor more, which filters rows
    and claims a CPU. Both need little beside the model, and may run on the core of a lane.

    Args:
        cpus: of each node that is alive.
        actors: how many; None for one on each node that has the lanes.
        lanes: of each; None for as many as the smallest node has CPUs.
        checkpoints: whether the job has them.

    Raises:
        ValueError: no node has a CPU, or fewer than one actor or lane is wanted.
    """
    whole = [int(count) for count in cpus if count >= 1]
    if not whole:
        raise ValueError("no node of the cluster has a CPU: start Ray with num_cpus=1 or more")
    for name, given in (("actors", actors), ("lanes", lanes)):
        if given is not None and given < 1:
            raise ValueError(f"{name} is {given}: give 1 or more, or leave it out")
    most = max(whole)
    each = lanes or min(whole)
    roomy = [count for count in whole if count >= each] or [most]
    count = actors or len(roomy)
    on_one = -(-count // len(roomy))  # actors of the fullest node
    free = min(roomy) - (2 if checkpoints else 1)
    return Placement(count, each, max(0, min(each, free // on_one)))
