"""Load generators, each a process of its own on the load core."""
