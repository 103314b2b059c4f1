"""LoadGen's logs, read: its verdict, its numbers, and the answers of an accuracy run.

::

    mlperf_log_detail.txt     `:::MLLOG {"key": …, "value": …}` a line
    mlperf_log_summary.txt    the same for people
    mlperf_log_accuracy.json  `{"seq_id", "qsl_idx", "data": hexadecimal}` of each answer
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_PREFIX = ":::MLLOG "
_KEPT = ("result_", "effective_", "early_stopping", "requested_scenario", "loadgen_version")
_PERCENTILE = re.compile(r"result_([\d.]+)_percentile_latency_ns")


class LogError(ValueError):
    """LoadGen's logs are not what this reads; the message names the file."""


class Performance(BaseModel, frozen=True):
    """LoadGen's word on one performance run.

    Attributes:
        verdict: VALID or INVALID, as LoadGen says it.
        rate: samples a second: completed (Server, Offline), or one after the other.
        percentiles: nanoseconds by percentile, of queries.
        reason: why it is invalid, in LoadGen's words; empty where it says nothing.
        early_stopping: what it says of how sure the percentile is.
        values: all results and settings in effect, by their names in the detail log.
        summary: its summary, whole.
    """

    scenario: str
    verdict: str
    rate: float
    percentiles: dict[str, int]
    reason: str
    early_stopping: str
    values: dict[str, Any]
    summary: str

    @property
    def valid(self) -> bool:
        """Whether LoadGen says so."""
        return self.verdict == "VALID"


def read_performance(folder: Path) -> Performance:
    """Read the logs of a performance run.

    Raises:
        LogError: they are not complete.
    """
    values = read_values(folder / "mlperf_log_detail.txt")
    summary = _read(folder / "mlperf_log_summary.txt")
    try:
        verdict, scenario = str(values["result_validity"]), str(values["effective_scenario"])
    except KeyError as error:
        raise LogError(f"{folder}: LoadGen gave no {error}: did the run end?") from error
    said = re.search(r"^Result is : (\w+)", summary, re.MULTILINE)
    if said is None or said.group(1) != verdict:
        raise LogError(f"{folder}: the summary does not say {verdict}, as the detail log does")
    return Performance(
        scenario=scenario,
        verdict=verdict,
        rate=_rate(values),
        percentiles={
            found.group(1): int(value)
            for key, value in values.items()
            if (found := _PERCENTILE.fullmatch(key))
        },
        reason=str(values.get("result_invalid_reason", "")).strip(),
        early_stopping=" ".join(str(values.get("early_stopping_result", "")).split()),
        values={key: value for key, value in values.items() if key.startswith(_KEPT)},
        summary=summary,
    )


def _rate(values: dict[str, Any]) -> float:
    """Samples a second; each scenario has a name of its own for it."""
    for key in ("result_completed_samples_per_sec", "result_samples_per_second"):
        if key in values:
            return float(values[key])
    samples = float(values.get("effective_samples_per_query", 1))
    mean = float(values.get("result_mean_latency_ns", 0))
    return samples * 1e9 / mean if mean else 0.0


def read_values(path: Path) -> dict[str, Any]:
    """Every key of a detail log, its last value, and errors under "errors".

    Raises:
        LogError: there is none.
    """
    values: dict[str, Any] = {}
    for line in _read(path).splitlines():
        if not line.startswith(_PREFIX):
            continue
        try:
            entry = json.loads(line[len(_PREFIX) :])
        except ValueError:
            continue  # a message with quotes of its own: LoadGen does not escape them all
        values[entry["key"]] = entry["value"]
    if not values:
        raise LogError(f"{path} has no line that begins with {_PREFIX}")
    return values


def read_answers(folder: Path) -> dict[int, bytes]:
    """Answers of an accuracy run, by the number of their sample.

    Raises:
        LogError: the log is not whole.
    """
    path = folder / "mlperf_log_accuracy.json"
    try:
        entries = json.loads(_read(path))
        return {int(entry["qsl_idx"]): bytes.fromhex(entry["data"]) for entry in entries}
    except (ValueError, TypeError, KeyError) as error:
        raise LogError(f"{path} is not LoadGen's log of answers: {error}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror}") from error
