"""What the bench compares with: the same work in PyTorch.

PyTorch is imported inside functions of this folder, and nowhere else.
"""
