"""The management API: routes, traffic and state of this worker over HTTP."""
