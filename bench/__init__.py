"""Benchmarks. Each measures both sides of its ratio in one run on one machine."""
