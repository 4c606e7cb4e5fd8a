"""The fit of the model of times on cards, from published times of whole models."""
