"""What may come: forecasting models behind one interface."""
