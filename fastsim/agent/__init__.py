"""A trained agent as a thing of its own: new bars in, weights and orders out; no run, no data."""
