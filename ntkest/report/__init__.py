"""The command line: `ntkest demo` and `ntkest report TARGET`, their tables, plots and JSON documents."""
