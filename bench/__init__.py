"""Benchmarks: each measures both sides of its ratio in one run, on the machine that it runs on."""
