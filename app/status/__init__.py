"""The state of the service: health, metrics, models."""
