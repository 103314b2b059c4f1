"""Settings: one model of them, its sources, its flags, and what may change while it runs."""
