"""`bertd serve` as a process: signals, supervision, exit codes, what systemd hears."""
