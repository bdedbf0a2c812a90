"""The models: which one is active, which one is next, and the rollout from one to the other."""
