"""Algorithms that learn where the data lies, and who trains them."""
