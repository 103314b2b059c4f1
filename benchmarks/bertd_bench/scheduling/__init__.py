"""Schedulers against each other in virtual time."""
