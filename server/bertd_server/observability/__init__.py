"""What an operator sees of a server: metrics, health over HTTP, traces, the access log.

::

    engine, scheduler, tasks ──count──> Statistics ──┐ read when somebody scrapes
    RPCs ──rpc monitoring  ──┬──> RpcCounts ────────┴──> metrics ──> endpoint (HTTP)
                              ├──> access log
                              └──> tracing ──> OTLP
"""
