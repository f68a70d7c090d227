"""Other people's interfaces; nothing here knows finance or learning."""
