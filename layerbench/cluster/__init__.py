"""Measuring on the nodes of a Ray cluster. Loads no torch.

Ray places tasks, notices nodes that die and carries what goes to and fro. What a measurement needs
is here: a fresh process for each, one at a time on a device, and columns of nodes of one kind.
"""
