"""Timings of training, reading and selection."""
