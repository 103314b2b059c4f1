"""What the machine gives this process, and what every room needs of it.

::

    cpu, cgroups    threads that may be used; limits of time and memory
    cache_folder    what a start leaves for later ones
    call_metrics    an RPC that is monitored: who asks, what, how it ended
    logs            structured logs, ours or the host's
    setting_types   names to choose from, amounts of memory
    exits           exit codes
"""
