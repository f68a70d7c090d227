"""Proximal policy optimisation where the data lies."""
