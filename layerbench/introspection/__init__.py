"""Modules and tensors of a model, read without methods that the model may hide."""
