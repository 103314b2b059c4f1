"""Who may listen, connect and call.

::

    settings ──exposure.py──> refused, or ports       beyond loopback only with TLS or --insecure
    files ──certificates.py──> TLS, mTLS              read again when they change
    files ──keys.py──> KeyRing ──rpc.interceptors──> calls: known, allowed, within their limits
    settings ──transport.py──> connections and streams
    files of the process ──connections.py──> those that a client has too many of end
    management.py            whether a call may change what is served
    scopes.py                which scope a method needs
    paths.py                 folders of a repository, by names that a caller gives

Without the settings there is nothing of it on the way of a request.
"""
