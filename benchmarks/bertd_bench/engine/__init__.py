"""One bundle without transport.

::

    random batches ──> memory over many of them ─ bits alone and together ─ times ──> EngineReport
"""
