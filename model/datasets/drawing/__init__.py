"""Drawing clothed figures as a surveillance camera would show them; Pillow and NumPy only."""
