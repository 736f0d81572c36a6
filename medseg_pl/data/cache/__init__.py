"""Cache of decoded cases."""
