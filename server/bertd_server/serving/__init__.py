"""A server put together: everything below is seen here alone.

::

    server     models, services, addresses; start, drain
    guard      certificates, keys, limits of connections
    assembly   metrics, access log, traces
"""
