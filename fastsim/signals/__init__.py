"""From a forecast to what to hold: direction, confidence, regimes, levels, sizes and their risk."""
