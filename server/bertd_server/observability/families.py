"""Every metric: its name, kind, help, labels, and where its values come from.

Names follow Prometheus's conventions: base units, `_total` for counters. The table of
docs/observability.md is written from this one, and a test holds dashboard and alerts to it.
https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from bertd_server.scheduling.statistics import Gauges, Histogram, Statistics

MetricKind = Literal["counter", "gauge", "histogram"]
MetricSample = tuple[tuple[str, ...], "float | Buckets"]

OF_MODEL = ("model", "version")
REFUSALS = (
    "deadline", "draining", "impossible", "no_lane", "promises",
    "queue_characters", "queue_seconds", "queue_tokens",
)  # fmt: skip
OUTCOMES = ("answered", "expired", "cancelled", "failed", "abandoned")


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A model as it was at one moment of the event loop; nothing in it changes any more."""

    name: str
    version: str
    task: str
    precision: str
    lanes: int
    statistics: Statistics
    gauges: Gauges


@dataclass(frozen=True, slots=True)
class Buckets:
    """A histogram to be exported: cumulative counts by upper bound, the last infinite."""

    counts: list[tuple[float, int]]
    total: float

    @classmethod
    def of(cls, histogram: Histogram, scale: Scale) -> Buckets:
        """Those of the histogram's own buckets that a scale keeps."""
        kept = [(bound, below) for bound, below in histogram.buckets() if scale.keeps(bound)]
        return cls(kept, histogram.total)


@dataclass(frozen=True, slots=True)
class Scale:
    """Upper bounds from 2**`low` to 2**`high`, so many for each doubling."""

    low: int
    high: int
    per_octave: int

    def keeps(self, bound: float) -> bool:
        """Whether it has this bound."""
        if math.isinf(bound):
            return True
        place = self.per_octave * math.log2(bound)
        within = self.per_octave * self.low <= round(place) <= self.per_octave * self.high
        return within and math.isclose(place, round(place), abs_tol=1e-6)


SECONDS = Scale(-13, 6, 2)  # 122 µs to 64 s
SEQUENCES = Scale(0, 12, 1)
TOKENS = Scale(0, 16, 1)
RATIO = Scale(-4, 4, 2)


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric of a model.

    Attributes:
        name: as it is scraped, `_total` included.
        kind: of Prometheus.
        help: what it counts.
        read: samples: values of the labels beyond model and version, and the value.
        labels: those labels.
    """

    name: str
    kind: MetricKind
    help: str
    read: Callable[[ModelSnapshot], Iterable[MetricSample]]
    labels: tuple[str, ...] = ()


def _histogram(name: str, help_: str, field: str, scale: Scale) -> MetricFamily:
    def read(view: ModelSnapshot) -> Iterator[MetricSample]:
        yield (), Buckets.of(getattr(view.statistics, field), scale)

    return MetricFamily(name, "histogram", help_, read)


def _counter(name: str, help_: str, field: str) -> MetricFamily:
    return MetricFamily(
        name, "counter", help_, lambda view: [((), getattr(view.statistics, field))]
    )


def _gauge(name: str, help_: str, field: str) -> MetricFamily:
    return MetricFamily(name, "gauge", help_, lambda view: [((), getattr(view.gauges, field))])


def _refusals(view: ModelSnapshot) -> Iterator[MetricSample]:
    counted = view.statistics.refused
    for reason in sorted({*REFUSALS, *counted}):
        yield (reason,), counted[reason]


def _outcomes(view: ModelSnapshot) -> Iterator[MetricSample]:
    for outcome in OUTCOMES:
        yield (outcome,), getattr(view.statistics, outcome)


FAMILIES = (
    MetricFamily(
        "bertd_model_info",
        "gauge",
        "1; what is served",
        lambda view: [((view.task, view.precision), 1)],
        ("task", "precision"),
    ),
    _histogram("bertd_tokenize_seconds", "tokenisation of a call", "tokenize", SECONDS),
    _histogram(
        "bertd_queue_seconds",
        "from submission to the start of its batch, of each text that was computed",
        "queue",
        SECONDS,
    ),
    _histogram("bertd_compute_seconds", "the model's run, of each batch", "compute", SECONDS),
    _histogram(
        "bertd_conclude_seconds",
        "slices of what follows the model's run, where it is too much for the event loop",
        "slices",
        SECONDS,
    ),
    _histogram(
        "bertd_request_seconds", "a call that was answered, without transport", "total", SECONDS
    ),
    _histogram("bertd_batch_sequences", "texts in a batch", "batch_sequences", SEQUENCES),
    _histogram("bertd_batch_tokens", "tokens in a batch", "batch_tokens", TOKENS),
    _histogram(
        "bertd_cost_model_ratio",
        "measured over predicted time, of each batch",
        "cost_ratio",
        RATIO,
    ),
    _gauge(
        "bertd_cost_model_error_ratio",
        "mean relative error of the last predictions on lanes",
        "cost_error",
    ),
    MetricFamily(
        "bertd_cost_model_refits_total",
        "counter",
        "times that live batches changed the cost model",
        lambda view: [((), view.gauges.refits)],
    ),
    _gauge("bertd_batch_budget_seconds", "predicted time of the largest batch", "budget_seconds"),
    MetricFamily(
        "bertd_texts_total",
        "counter",
        "texts that were taken, by what became of them; cached answers included",
        _outcomes,
        ("outcome",),
    ),
    _counter(
        "bertd_texts_joined_total", "texts that joined an equal one in flight", "deduplicated"
    ),
    _counter(
        "bertd_texts_started_late_total",
        "texts whose batch started after their deadline; there should be none",
        "started_late",
    ),
    MetricFamily(
        "bertd_refusals_total",
        "counter",
        "calls that were not taken, by reason",
        _refusals,
        ("reason",),
    ),
    _counter(
        "bertd_conclusions_dropped_total",
        "calls that went away while their answer was put together",
        "dropped",
    ),
    _counter("bertd_wide_batches_total", "batches that ran on all threads", "wide_batches"),
    _counter(
        "bertd_short_batches_total",
        "batches of short texts that ran beside the lanes",
        "short_batches",
    ),
    _counter("bertd_batch_failures_total", "batches that failed and were split", "batch_failures"),
    _counter("bertd_lane_deaths_total", "lanes that had to be replaced", "lane_deaths"),
    _gauge("bertd_queue_texts", "texts that wait for a batch", "waiting"),
    _gauge("bertd_queue_tokens", "tokens that wait for a batch", "waiting_tokens"),
    _gauge(
        "bertd_queue_characters", "characters that wait for the tokeniser", "waiting_characters"
    ),
    _gauge("bertd_queue_conclusions", "calls that wait for a slice of conclude", "waiting_jobs"),
    _gauge(
        "bertd_queue_predicted_seconds",
        "predicted wait of a text of the lowest class that arrives now; +Inf without lanes",
        "predicted_wait",
    ),
    MetricFamily(
        "bertd_in_flight_requests",
        "gauge",
        "calls that are being answered; a message of a stream is one",
        lambda view: [((), view.statistics.in_flight.calls)],
    ),
    MetricFamily(
        "bertd_in_flight_texts",
        "gauge",
        "texts of these calls",
        lambda view: [((), view.statistics.in_flight.texts)],
    ),
    MetricFamily(
        "bertd_lanes", "gauge", "lanes that there should be", lambda view: [((), view.lanes)]
    ),
    _gauge("bertd_lanes_alive", "lanes that can run batches", "lanes_alive"),
    _gauge("bertd_batches_running", "batches that run", "batches_running"),
    MetricFamily(
        "bertd_cache_hits_total",
        "counter",
        "texts that were found in the cache of results",
        lambda view: [((), view.gauges.cache_hits)],
    ),
    MetricFamily(
        "bertd_cache_misses_total",
        "counter",
        "texts that were not",
        lambda view: [((), view.gauges.cache_misses)],
    ),
    _gauge("bertd_cache_bytes", "what the cached results take", "cache_bytes"),
    MetricFamily(
        "bertd_last_answer_timestamp_seconds",
        "gauge",
        "when a call was last answered; 0 if none was",
        lambda view: [((), view.statistics.last_answer)],
    ),
)
"""Of each model; all have the labels model and version before their own."""

OF_SERVER: dict[str, tuple[MetricKind, str, tuple[str, ...]]] = {
    "bertd_build_info": (
        "gauge",
        "1; versions of the server, ONNX Runtime and Python",
        ("version", "onnxruntime", "python"),
    ),
    "bertd_ready": ("gauge", "1 while calls are taken", ()),
    "bertd_event_loop_lag_seconds": (
        "gauge",
        "how long this scrape waited for the event loop",
        (),
    ),
    "bertd_rpcs_total": (
        "counter",
        "RPCs, and calls over HTTP, that have ended",
        ("rpc", "protocol", "code"),
    ),
    "bertd_rpcs_in_flight": (
        "gauge",
        "RPCs, and calls over HTTP, that run, open streams included",
        ("rpc", "protocol"),
    ),
    "bertd_memory_bytes": (
        "gauge",
        "resident memory: anonymous (ONNX Runtime's arena, Python), file (mapped weights, code)",
        ("kind",),
    ),
    "bertd_memory_limit_bytes": ("gauge", "what --memory-limit allows; 0 for no limit", ()),
    "bertd_request_memory_bytes": (
        "gauge",
        "of requests in flight, as estimated: held, and the limit of all of them",
        ("kind",),
    ),
    "bertd_calls_waiting_for_memory": ("gauge", "large calls that wait until others end", ()),
}
"""Of the server as a whole."""

OF_PROCESS: dict[str, tuple[MetricKind, str]] = {
    "process_cpu_seconds_total": ("counter", "CPU time of the process"),
    "process_resident_memory_bytes": ("gauge", "resident memory, as the system counts it"),
    "process_virtual_memory_bytes": ("gauge", "address space"),
    "process_open_fds": ("gauge", "open file descriptors"),
    "process_max_fds": ("gauge", "how many there may be"),
    "process_start_time_seconds": ("gauge", "when the process began"),
}
"""Made by prometheus-client, where there is a /proc."""


def table() -> str:
    """All metrics, as a Markdown table."""
    of_models = [
        _row(each.name, each.kind, (*OF_MODEL, *each.labels), each.help) for each in FAMILIES
    ]
    of_server = [
        _row(name, kind, labels, help_) for name, (kind, help_, labels) in OF_SERVER.items()
    ]
    of_process = [_row(name, kind, (), help_) for name, (kind, help_) in OF_PROCESS.items()]
    head = ["| metric | kind | labels | |", "|---|---|---|---|"]
    return "\n".join([*head, *of_models, *of_server, *of_process])


def _row(name: str, kind: MetricKind, labels: tuple[str, ...], help_: str) -> str:
    return f"| `{name}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {help_} |"
