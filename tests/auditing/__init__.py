"""The audit of given labels."""
