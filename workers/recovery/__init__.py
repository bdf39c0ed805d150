"""Recovery training: what an assembled model learns again after it was pruned and quantized."""
