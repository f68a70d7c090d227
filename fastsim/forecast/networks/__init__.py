"""Networks that take more than a file beside their model."""
