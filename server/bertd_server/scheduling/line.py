"""The texts that wait, kept in both of the orders in which they may go.

::

    add, remove ──> by rank   [priority, deadline, turn]   ──front──> form_batch ──> Decision
                    by turn   [turn]                        when the eldest was passed over

Forming a batch looks at the front alone: its work does not grow with the line.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Generic

from bertd_server.scheduling.batching import (
    BatchPolicy,
    Costs,
    Decision,
    FreeLanes,
    W,
    form_batch,
    rank,
    turn,
)


class Line(Generic[W]):
    """Texts in line. A text's rank and turn must not change while it stands there."""

    def __init__(self) -> None:
        # Keys end with the text's number, which makes them unique.
        self._by_rank: list[tuple[tuple[float, float, float], int]] = []
        self._by_turn: list[tuple[float, int]] = []
        self._texts: dict[int, W] = {}
        self._numbers: dict[int, int] = {}  # of each text, by its identity
        self._added = 0

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[W]:
        """In the ordinary order."""
        return (self._texts[number] for _, number in self._by_rank)

    def __contains__(self, text: W) -> bool:
        return id(text) in self._numbers

    @property
    def eldest(self) -> W:
        """The text with the earliest turn; there must be one."""
        return self._texts[self._by_turn[0][1]]

    def add(self, text: W) -> None:
        """Put a text in its places."""
        number = self._added = self._added + 1
        self._texts[number] = text
        self._numbers[id(text)] = number
        insort(self._by_rank, (rank(text), number))
        insort(self._by_turn, (turn(text), number))

    def remove(self, text: W) -> None:
        """Take a text out."""
        number = self._numbers.pop(id(text))
        del self._texts[number]
        del self._by_rank[bisect_left(self._by_rank, (rank(text), number))]
        del self._by_turn[bisect_left(self._by_turn, (turn(text), number))]

    def take(self, policy: BatchPolicy, costs: Costs, lanes: FreeLanes, now: float) -> Decision[W]:
        """Form a batch of the front, and take it and what is late out of the line.

        `remaining` of the decision is what was looked at and stays.
        """
        decision = form_batch(self._front(policy, costs, lanes), policy, costs, lanes, now)
        for text in (*decision.batch, *decision.late):
            self.remove(text)
        if decision.batch and self._texts:
            eldest = self.eldest
            if any(text.turn > eldest.turn for text in decision.batch):
                eldest.passed_over += 1
        return decision

    def _front(self, policy: BatchPolicy, costs: Costs, lanes: FreeLanes) -> list[W]:
        """As many texts, first ones first, as could fill every idle lane."""
        if not self._texts:
            return []
        overdue = self.eldest.passed_over >= policy.max_passed_over
        keys: Sequence[tuple[object, int]] = self._by_turn if overdue else self._by_rank
        front: list[W] = []
        work, enough = 0.0, policy.budget_seconds * lanes.idle
        for _, number in keys[: policy.max_sequences * lanes.idle]:
            front.append(self._texts[number])
            work += costs.lane.share(front[-1].shape)
            if work > enough:
                break
        return front
