"""What the web process and its worker say to each other. Loads no torch."""
