"""The forecasters: one file turns one architecture and its weights into a `ForecastModel`."""
