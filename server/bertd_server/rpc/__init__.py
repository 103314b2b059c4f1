"""The gRPC services. Protobuf messages stop here: nothing below this layer sees one.

::

    services      all of them on a gRPC server, ours or somebody else's
    interceptors  what each call passes first: monitoring, keys, decoding
    v1, v2, tei   the protocols, which do not know each other: messages to plain values, and back
    health, reflection, load_reports
    status, checks, limits, offload, streams   what the protocols share
"""
