"""Runs: from a configuration to markets, a trained agent, its evaluation and comparisons."""
