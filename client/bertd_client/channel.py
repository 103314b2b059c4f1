"""How the client's channels behave: retries and message sizes."""

from __future__ import annotations

import json

MAX_MESSAGE_BYTES = 64 * 1024 * 1024

# Every call only reads, so that repeating one is safe. gRPC adds jitter to the backoff. Where the
# server says how long to wait (grpc-retry-pushback-ms), that counts; a negative number ends the
# attempts.
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [
                    {"service": "bertd.v1.InferenceService"},
                    {"service": "bertd.v1.ModelService"},
                ],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "2s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ]
    }
)

OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", SERVICE_CONFIG),
    ("grpc.enable_retries", 1),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
)
