"""MGN and everything that makes, checks and carries its checkpoints; a library of its own that never imports `app`."""
