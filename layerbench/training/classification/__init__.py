"""Training of classifiers: runs, and what one will take."""
