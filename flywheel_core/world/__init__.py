"""The simulated product: characters, a closed language, users with a hidden utility, annotators."""
