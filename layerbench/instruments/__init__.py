"""Instruments: each attaches to a model for a while and gives plain facts or samples back.

One file a metric. Whatever an instrument puts on a user's model it takes off in ``finally``.
"""
