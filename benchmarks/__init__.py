"""How much ntkest costs beside what it replaces. ``python -m benchmarks --help``; not part of the installed package."""
