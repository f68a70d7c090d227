"""Soft actor-critic (Haarnoja et al. 2018): learning again and again from what was once done."""
