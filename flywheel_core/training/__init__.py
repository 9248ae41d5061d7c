"""Model training: everything below a stage that needs torch."""
