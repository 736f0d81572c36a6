"""Data sets: sources, splits, the cache, datasets, samplers and augmentation."""
