"""What bars and the calendar say beside closes: for corrections of volatility, and networks."""
