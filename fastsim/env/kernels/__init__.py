"""Backends of the step: the reference in torch, and fused kernels that are held to it."""
