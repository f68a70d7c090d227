"""The season of volatility: how much prices move by the hour, around any forecaster."""
