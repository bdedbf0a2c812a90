"""The vector index: its port, its adapters, and its sync with the database."""
