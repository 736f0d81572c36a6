"""From files to samples: sources, splits, the store, slices, samplers and augmentation."""
