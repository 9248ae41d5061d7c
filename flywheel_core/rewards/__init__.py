"""Reward models as evidence: how biased signals are, and how models do on every batch."""
