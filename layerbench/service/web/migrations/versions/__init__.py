"""One file for each form that stores have had, in their order."""
