"""Logged traffic in: validated row by row, bad rows quarantined, days as versioned partitions."""
