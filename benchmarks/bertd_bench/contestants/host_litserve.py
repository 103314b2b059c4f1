"""litserve around ONNX Runtime: `python -m bertd_bench.contestants.host_litserve`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import litserve

from bertd_bench.contestants.hosted import WAIT_SECONDS, HostedModel


class LitserveEmbedder(litserve.LitAPI):  # type: ignore[misc,unused-ignore]
    """A copy of the model, in a process of its own."""

    def setup(self, device: str) -> None:
        """Load the model."""
        del device  # the CPU
        self._answer = HostedModel.given().model()

    # Without a type: litserve hands a type to FastAPI, which then looks into the query.
    def decode_request(self, request) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
        """The text of a request."""
        return str(request["input"])

    def predict(self, x: Any) -> Any:
        """A batch, or one text where batches hold one."""
        many = isinstance(x, Sequence) and not isinstance(x, str)
        rows = self._answer(x if many else [x])
        return rows if many else rows[0]

    def encode_response(self, output: Any) -> dict[str, Any]:
        """A vector as JSON."""
        return {"embedding": output.tolist()}


def main() -> None:
    """Serve until told to end."""
    hosted = HostedModel.given()
    api = LitserveEmbedder(max_batch_size=hosted.batch, batch_timeout=WAIT_SECONDS)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=hosted.workers)
    server.run(host="127.0.0.1", port=hosted.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
