"""mosec around ONNX Runtime: `python -m bertd_bench.contestants.host_mosec`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mosec import Server, Worker

from bertd_bench.contestants.hosted import WAIT_SECONDS, HostedModel


class MosecEmbedder(Worker):  # type: ignore[misc,unused-ignore]
    """A copy of the model, in a process of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._answer = HostedModel.given().model()

    def forward(self, data: Any) -> Any:
        """A batch, or one request where batches hold one."""
        many = isinstance(data, Sequence)
        rows = self._answer([each["input"] for each in (data if many else [data])])
        said = [{"embedding": row.tolist()} for row in rows]
        return said if many else said[0]


def main() -> None:
    """Serve until told to end."""
    hosted = HostedModel.given()
    sys.argv[1:] = ["--address", "127.0.0.1", "--port", str(hosted.port), "--log-level", "warning"]
    server = Server()
    server.append_worker(
        MosecEmbedder,
        num=hosted.workers,
        max_batch_size=hosted.batch,
        max_wait_time=int(1e3 * WAIT_SECONDS),
    )
    server.run()


if __name__ == "__main__":
    main()
