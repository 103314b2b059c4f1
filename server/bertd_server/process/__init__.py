"""`bertd serve` as a process.

::

    app          serve: load, listen, wait for a signal, drain
    lifecycle    signals, SIGHUP, the exit code
      systemd      what the service manager hears
      watchdog     a batch that never ends, memory beyond its limit: restart
      trimming     freed memory goes back to the system
    supervisor   a small parent that restarts the server (`--supervise`)
    runtime      what a process that only serves settles for its libraries
    keys         `bertd keys`
"""
