"""A linear correction of a forecaster's volatility, fitted to a person's bars."""
