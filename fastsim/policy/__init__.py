"""What decides: the network, what it was made for, and how it is carried from place to place."""
