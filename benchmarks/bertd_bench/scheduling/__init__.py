"""Schedulers against each other in virtual time.

::

    measured costs, seeded traffic ──> policies on simulated lanes ──> goodput, latencies
"""
