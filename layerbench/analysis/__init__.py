"""Records in, records out: statistics, comparisons, roofline. Loads no torch."""
