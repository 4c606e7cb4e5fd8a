"""The processes that load models, for the service."""
