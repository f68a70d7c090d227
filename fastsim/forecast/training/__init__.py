"""What forecasters of our own were trained on, and how."""
