"""Reindexing: stored crops are embedded with the next model in the background, then it becomes the active model."""
