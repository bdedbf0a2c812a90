"""Drawing of clothed figures in the style of surveillance cameras, with Pillow and NumPy only."""
