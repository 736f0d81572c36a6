"""Files in, files out: one file, one subcommand."""

FILE_COMMANDS = (
    "check",
    "compare",
    "evaluate",
    "export",
    "info",
    "new",
    "phantom",
    "plan",
    "postprocess",
    "report",
    "review",
)
