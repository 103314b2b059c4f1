"""The task's own metrics on labelled examples."""
