"""What a return series is judged by, and how sure one can be of it."""
