"""MLServer around ONNX Runtime: `python -m bertd_bench.contestants.host_mlserver FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.cli import main as command
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bertd_bench.contestants.hosted import WAIT_SECONDS, HostedModel, free_port


class MlserverEmbedder(MLModel):  # type: ignore[misc,unused-ignore]
    """A copy of the model."""

    async def load(self) -> bool:
        """Load the model."""
        self._answer = HostedModel.given().model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Texts of one request, or of several that MLServer has joined."""
        texts: list[str] = StringCodec.decode_input(payload.inputs[0])
        rows = np.asarray(self._answer(texts), np.float32)
        outputs: list[Any] = [NumpyCodec.encode_output("embedding", rows)]
        return InferenceResponse(model_name=self.name, outputs=outputs)


def main() -> None:
    """Write what MLServer reads into a folder, and serve it until told to end."""
    folder, hosted = Path(sys.argv[1]), HostedModel.given()
    served = {
        "host": "127.0.0.1",
        "grpc_port": hosted.port,
        "http_port": free_port(),
        "metrics_port": free_port(),
        # No worker process: the model in the server's own, which is the faster for one copy.
        "parallel_workers": hosted.workers if hosted.workers > 1 else 0,
        "debug": False,
    }
    model: dict[str, Any] = {
        "name": "model",
        "implementation": f"{__spec__.name}.MlserverEmbedder",
    }
    if hosted.batch > 1:
        model |= {"max_batch_size": hosted.batch, "max_batch_time": WAIT_SECONDS}
    for name, said in (("settings.json", served), ("model-settings.json", model)):
        (folder / name).write_text(json.dumps(said), encoding="utf-8")
    sys.argv = ["mlserver", "start", str(folder)]
    command()


if __name__ == "__main__":
    main()
