"""The time that a model takes on a GPU that is not here: operators, and a fitted model of each."""
