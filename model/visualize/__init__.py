"""Pictures of what a network does: ranks, activations, parts, maps of a gallery, curves."""
