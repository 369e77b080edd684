"""On-device augmentation of whole batches, in pure JAX."""
