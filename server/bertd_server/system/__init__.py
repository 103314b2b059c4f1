"""What the machine and the process are: cores, cgroups, logs, cache folder, exit codes."""
