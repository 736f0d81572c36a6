"""Command line: parser, LightningCLI and error messages."""
