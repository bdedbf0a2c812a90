"""The parts of a training run; model/train.py puts them together."""
