"""Training of detectors: runs taken apart, and what one will take."""
