"""The Open Inference Protocol, version 2, with Triton's extensions: named tensors in and out.

::

    ModelInferRequest ──tensors──> arrays, strings ──inputs──> Input ──tasks──> Answers
                      └─parameters─> RequestParameters ─────────^                 │
    ModelInferResponse <──────────────────────tensors───────────────── outputs <──┘

`surface` says which tensors and parameters each task has; requests are checked against it, and
`describe` tells clients of it. docs/v2.md is the same in words.
"""

from bertd_server.rpc.v2.service import SERVICE, OpenInferenceService

__all__ = ["SERVICE", "OpenInferenceService"]
