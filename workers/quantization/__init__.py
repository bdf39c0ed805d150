"""Quantization: weights to codes, and linear layers that compute as the target's kernels do."""
