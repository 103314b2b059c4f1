"""What every part of bertd knows, and nothing else: the contracts between them.

::

    bertd.v1, bertd.tei.v1, bertd.oip   gRPC APIs, generated from the .proto files beside them
    bertd.bundle                        the folder on disk between ``bertd export`` and the server
    bertd.telemetry                     ONNX Runtime's is refused, before anybody imports it

Nothing here imports another bertd package; every other package may import this one.
"""

__version__ = "0.1.0"
