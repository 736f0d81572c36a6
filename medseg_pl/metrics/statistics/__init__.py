"""Intervals, paired scores and comparisons."""
