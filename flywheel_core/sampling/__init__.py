"""Rejection sampling (§2.4.1, Algorithm 1)."""
