"""Predictions with their error: what a device that is not here would need."""
