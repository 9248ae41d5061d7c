"""User erasure: the list, and the removal of what holds erased users' rows."""
