"""Lightning code: module, data module, callbacks, checkpoints and loggers."""
