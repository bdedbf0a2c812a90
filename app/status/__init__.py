"""How the service is: health, metrics, the model that it uses."""
