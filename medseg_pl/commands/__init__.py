"""Files in, files out: one file, one subcommand."""
