"""Active health: what the supervisor finds out about backends by asking them, and what becomes of it."""
