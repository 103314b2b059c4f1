"""The contracts of bertd: gRPC APIs (``bertd.v1``) and the bundle on disk (``bertd.bundle``).

Nothing here imports another bertd package; every other package may import this one.
"""

__version__ = "0.1.0"
