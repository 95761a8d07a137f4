"""Logging in: HTTP clients that carry credentials. Knows HTTP and TLS, and nothing of EWS."""
