"""``python -m ntkest``: the command line."""

from .report.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
