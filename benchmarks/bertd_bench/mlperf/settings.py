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
from typing import Literal

Scenario = Literal["SingleStream", "MultiStream", "Server", "Offline"]
SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "MultiStream", "Server", "Offline")
SERVER = "Server"
STREAMS = 8  # texts of a query of MultiStream

SEED = 20_240  # official runs are given seeds on the day; these are ours


@dataclass(frozen=True, slots=True)
class Preset:
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


_QUERIES: dict[Scenario, int] = {
    "SingleStream": 1024,
    "MultiStream": 662,
    "Server": 100,
    "Offline": 1,
}

QUICK = Preset(
    seconds=6,
    queries={**_QUERIES, "SingleStream": 64},
    library=2048,
    accuracy=256,
    search_seconds=6,
    search_runs=7,
    precision=0.06,
)
FULL = Preset(
    seconds=600,
    queries=_QUERIES,
    library=10_833,  # as many as BERT's set of questions has
    accuracy=10_833,
    search_seconds=60,
    search_runs=12,
    precision=0.02,
)
CHECK = Preset(
    seconds=0.2,
    queries=dict.fromkeys(SCENARIOS, 8),
    library=64,
    accuracy=64,
    search_seconds=0.2,
    search_runs=3,
    precision=0.5,
)
PRESETS = {"quick": QUICK, "full": FULL, "check": CHECK}


@dataclass(frozen=True, slots=True)
class Expected:
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
