"""Errors, devices, processes, checkpoints; imports nothing else of jaxnlt."""
