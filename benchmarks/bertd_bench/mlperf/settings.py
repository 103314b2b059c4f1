"""What LoadGen is asked for: scenarios, and how long and how much each of them runs.

::

    SingleStream   one text, and the next when it is answered          90th percentile
    MultiStream    eight texts, and the next eight when all are there  99th percentile
    Server         one text at random moments, so many a second        99 % within a limit
    Offline        all texts at once                                   texts a second

Names, percentiles and the full preset's numbers are those of LoadGen's `mlperf.conf`
(https://github.com/mlcommons/inference/blob/master/loadgen/mlperf.conf), BERT's limit of 130 ms in
the Server scenario among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "MultiStream", "Server", "Offline")
SERVER = "Server"
STREAMS = 8  # texts of a query of MultiStream

SEED = 20_240  # official runs are given seeds on the day; these are ours


class Preset(NamedTuple):
    """How much is run.

    Attributes:
        seconds: least duration of a performance run.
        queries: least of them, by scenario.
        library: texts that there are.
        accuracy: how many of them an accuracy run asks.
        search_seconds: duration of each run while the highest rate of Server is sought.
        search_runs: of these, at most.
        precision: ends the search: between a rate that was valid and one that was not.
    """

    seconds: float
    queries: dict[Scenario, int]
    library: int
    accuracy: int
    search_seconds: float
    search_runs: int
    precision: float


_FULL: dict[Scenario, int] = dict(zip(SCENARIOS, (1024, 662, 100, 1), strict=True))
_SAMPLES = 10_833  # as many as BERT's set of questions has
PRESETS = {
    "quick": Preset(6, {**_FULL, "SingleStream": 64}, 2048, 256, 6, 7, 0.06),
    "full": Preset(600, _FULL, _SAMPLES, _SAMPLES, 60, 12, 0.02),
    "check": Preset(0.2, dict.fromkeys(SCENARIOS, 8), 64, 64, 0.2, 3, 0.5),
}


class Expected(NamedTuple):
    """What the system is expected to do, so that LoadGen makes queries enough.

    Attributes:
        single: seconds of one text.
        multi: seconds of eight.
        offline: texts a second.
    """

    single: float
    multi: float
    offline: float


@dataclass(frozen=True, slots=True)
class LoadGenRun:
    """One run of LoadGen.

    Attributes:
        accuracy: whether answers are logged, and nothing is timed.
        seconds: least duration.
        queries: least of them.
        samples: of an accuracy run.
        limit: seconds for 99 % of the queries of Server.
        rate: queries a second of Server.
    """

    scenario: Scenario
    accuracy: bool
    seconds: float
    queries: int
    samples: int
    limit: float
    rate: float
    expected: Expected
