"""Measuring a candidate against production, with honest intervals."""
