"""The request path, read top to bottom: connection, router, exchange, balancer, pool, relay, upgrade."""
