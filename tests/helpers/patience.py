"""How long a test waits for what must happen: long enough for any machine, however busy."""

PATIENCE = 600
"""Seconds. A test that waits for them in vain has failed; none passes because they are short."""
