"""Recipes of a measurement: each runs a model and fills one kind of record."""
