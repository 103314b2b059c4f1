"""Servers under load, each in a process of its own.

::

    client process ──rates, up and down──> bertd, eager behind its front end ──> ramps
                   ──same bytes──> bertd without a model, an echo ──> CPU seconds a message
"""
