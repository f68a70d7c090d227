"""The policy's passes by hand: products of matrices in rooms of their own, and fused kernels."""
