"""Curation (§2.2.1, §2.6): filter, diversify, balance, split."""
