"""The entry point of ``ntkest``: from arguments to an exit status."""

from __future__ import annotations

import os
import sys
import traceback
from argparse import Namespace
from collections.abc import Sequence

from ..problems import described
from .arguments import parser

FAILED, INTERRUPTED = 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ntkest` with these arguments, by default those of the process, and return its exit status.

    0, or 1 if ``--repeat`` found other numbers, 2 after an error, which is one line on standard error, and 130 after
    Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without ± or ᵀ is no reason to fail
    arguments = list(sys.argv[1:] if argv is None else argv)
    show = "--traceback" in arguments or os.environ.get("NTKEST_TRACEBACK", "") not in ("", "0")
    try:
        return _run(parser().parse_args(arguments))
    except KeyboardInterrupt:
        sys.stderr.write("ntkest: interrupted\n")
        return INTERRUPTED
    except BrokenPipeError:  # `ntkest demo | head`: there is nobody left to write to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if show:
            traceback.print_exc()
        sys.stderr.write(f"ntkest: error: {described(error)}\n")
        return FAILED


def _run(options: Namespace) -> int:
    """Import what the command needs, and no more: `ntkest --help` stays fast."""
    from . import commands

    return commands.run(options)
