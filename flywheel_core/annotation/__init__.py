"""Annotated pairs (§2.2.2) and where the labels come from."""
