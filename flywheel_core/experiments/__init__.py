"""A/B experiments one can defend: assignment, aggregation, lifts, trust, decisions."""
