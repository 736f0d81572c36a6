"""The nouns: labels, geometry, cases and batches, errors. Imports nothing of medseg."""
