"""What forecasts are worth on the bars that came."""
