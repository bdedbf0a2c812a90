"""Benchmarks of the index against exact search and against other indexes, and the embeddings for them."""
