"""Sources of routes, each a provider that hands what it knows to the supervisor."""
