"""Draws crops of invented persons in the style of surveillance cameras, with Pillow and NumPy.

A development tool that is not installed with the package. `python -m drawing model/datasets/drawn` writes the shipped
crops.
"""
