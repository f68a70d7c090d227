"""What came of it: replaying decisions, measuring them, reporting them."""
