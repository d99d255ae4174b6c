"""What can go wrong on the command line."""

from __future__ import annotations

from ..linearization import NTKError


class CommandError(NTKError, ValueError):
    """Something that was asked of the command line cannot be done."""
