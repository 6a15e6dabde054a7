"""Listening, dialling, TLS and certificates. Knows streams and no HTTP."""
