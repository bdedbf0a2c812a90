"""Benchmarks and checks on a machine with a GPU, by one command and without network."""
