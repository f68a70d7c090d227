"""Analytic policy gradient: the slope of wealth itself, through differentiable books."""
