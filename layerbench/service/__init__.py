"""The estimation service: what a model will need, asked over HTTP before it runs."""
