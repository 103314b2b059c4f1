"""How many replicas: by what they compute and what waits for them, as bertd's load reports say.

::

    replica ──record_autoscaling_stats: utilisation──> Ray's controller ──> Utilisation ──> replicas
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

UTILISATION = "bertd_utilisation"
"""Of a replica: the share of its lanes that compute, and the predicted seconds of its queue."""
TARGET = 0.7


def replicas_for(used: Collection[float], running: int, target: float) -> int:
    """How many replicas bring the mean utilisation to the target.

    Args:
        used: utilisation of the replicas that have reported, each 0 or more. A replica that is all
            busy has 1, and 1 more for each second of its queue: the backlog is to be gone in a
            second's work of the replicas that come.
        running: replicas that there are; one that has not reported is taken for a mean one.
        target: utilisation of each, above 0.

    Returns:
        the replicas, not bounded; those that run where none has reported.
    """
    if not used:
        return running
    whole = sum(used) / len(used) * max(running, len(used))
    # What rounding has added is no reason for another replica.
    return math.ceil(round(whole / target, 6))


class Utilisation:
    """A policy of `autoscaling_config`; Ray applies its bounds, delays and factors to what it says.

    ::

        policy:
          policy_function: bertd_ray.scaling:Utilisation
          policy_kwargs: {target: 0.7}
    """

    def __init__(self, target: float = TARGET) -> None:
        """Aim at a utilisation.

        Raises:
            ValueError: it is not above 0, or so large that calls are refused before it is reached.
        """
        if not 0 < target <= 2:
            raise ValueError(
                f"target is {target}: give a number above 0 and up to 2, such as {TARGET}; 1 is a "
                "replica whose lanes all compute and whose queue is empty"
            )
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Say how many replicas there should be; Ray's AutoscalingContext tells how things are."""
        reported = (context.aggregated_metrics or {}).get(UTILISATION, {})
        used = [reported[one] for one in context.running_replicas if one in reported]
        return replicas_for(used, context.current_num_replicas, self._target), {}
