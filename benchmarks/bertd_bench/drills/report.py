"""What a drill saw, and the sentences that say it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bertd_bench.drills.callers import CallersSeen

GROWTH_LIMIT = 0.10
_SETTLING = 10  # swaps after which memory must not grow any more
_WINDOW = 5  # swaps of which the largest memory counts


@dataclass(slots=True)
class DrillReport:
    """One drill.

    Attributes:
        name: of it.
        times: that servers were restarted, or models swapped.
        seen: by the callers.
        first: when calls began.
        began: when the drill began, after a quiet time.
        ended: when it ended.
        memory: bytes resident after each swap; empty for restarts.
        answered: texts of each run of a server that could say so at its end; of restarts.
    """

    name: str
    times: int
    seen: CallersSeen
    first: float
    began: float
    ended: float
    memory: list[int] = field(default_factory=list)
    answered: list[int] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Most memory of the last swaps over that of those before the tenth, less one."""
        if not self.memory:
            return 0.0
        early = self.memory[: min(_SETTLING, len(self.memory))][-_WINDOW:]
        return max(self.memory[-_WINDOW:]) / max(early) - 1

    def latency(self, share: float) -> tuple[float, float]:
        """A quantile in milliseconds: before the drill, and during it."""
        return (
            self.seen.milliseconds(share, self.first, self.began),
            self.seen.milliseconds(share, self.began, self.ended),
        )

    @property
    def wrong(self) -> list[str]:
        """What should not have happened."""
        found = list(self.seen.wrong)
        if self.growth >= GROWTH_LIMIT:
            found.append(f"memory grew by {self.growth:.1%} after the first {_SETTLING} swaps")
        if idle := sum(not texts for texts in self.answered):
            found.append(f"{idle} servers ended without one answer")
        return found

    def lines(self) -> list[str]:
        """The report for a terminal."""
        took = self.ended - self.began
        head = f"{self.name}: {self.times} times, {60 * self.times / took:.0f} a minute"
        if self.memory:
            head += (
                f"; memory {self.memory[-1] / 2**20:.0f} MiB, {self.growth:+.1%} since the tenth"
            )
        kinds = sorted(self.seen.answered.items())
        counts = ", ".join(f"{count:,} {kind}" for kind, count in kinds)
        lines = [head, f"  answered: {counts}; {self.seen.texts:,} texts; {len(self.wrong)} wrong"]
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            before, during = self.latency(share)
            lines.append(f"  {name}: {before:.1f} ms before, {during:.1f} ms meanwhile")
        return lines + [f"  wrong: {line}" for line in self.wrong[:20]]
