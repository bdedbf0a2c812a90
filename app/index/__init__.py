"""The vector index: its port, its adapters, and what keeps them in step with the database."""
