"""Trainings: runs of epochs on a data set, and how long one will take."""
