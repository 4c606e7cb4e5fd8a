"""Modules and tensors of a model, read without asking methods that the model may hide."""
