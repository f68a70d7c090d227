"""What happened: bars, the tape of tensors made from them, and what trading costs."""
