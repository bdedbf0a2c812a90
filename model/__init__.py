"""MGN: training, evaluation, conversion and export of its checkpoints. A separate library that never imports `app`."""
