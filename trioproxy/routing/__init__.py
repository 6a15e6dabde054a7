"""Which route an address means: pure data and lookups, no I/O."""
