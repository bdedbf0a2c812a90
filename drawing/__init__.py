"""Draws clothed figures in the style of surveillance cameras, with Pillow and NumPy: crops of persons that nobody is.

A development tool that is not installed with the package. `python -m drawing model/datasets/drawn` makes the crops that
are shipped.
"""
