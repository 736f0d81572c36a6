"""Resizing, windows and augmentation."""
