"""File formats. The only room that imports Pillow, tifffile and nibabel."""
