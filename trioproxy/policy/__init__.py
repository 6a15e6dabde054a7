"""Decisions, pure: who may in, which backend, whether to try again. No clock, no I/O."""
