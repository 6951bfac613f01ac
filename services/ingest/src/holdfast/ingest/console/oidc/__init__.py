"""Signing in with OpenID Connect: what is asked of the provider, and what of its answers counts (ADR 0043)."""
