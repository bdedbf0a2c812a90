"""Checkpoints of other people's code, made into ours."""
