"""The market as tensors: the tape made from bars, its features, and what trading costs."""
