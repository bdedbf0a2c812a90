"""Visualisation: ranked results, activation maps, part similarities, 2-D gallery maps, training curves."""
