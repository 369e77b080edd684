"""Data sets: reading them, long tails, label noise, batches of row numbers."""
