"""A command from its options to what it prints and writes."""

from __future__ import annotations

import sys
from argparse import Namespace

from . import analysis, demo, distill, document, figures, files, kernel, repeat, tables
from .arguments import DEFAULTS
from .problems import CommandError
from .progress import stages
from .run import Run

COMMANDS = {"demo": demo.run, "report": analysis.run, "kernel": kernel.run, "distill": distill.run}


def run(options: Namespace) -> int:
    """Do it, print it, write it; returns the exit status."""
    if options.json is not None and options.json == options.plot:
        raise CommandError(f"--json and --plot both name {options.json}")
    files.check(options.json, options.force)
    files.check(options.plot, options.force)
    figures.check(options.plot)
    if options.repeat is not None:
        return _repeat(options)
    _fill(options)
    return _finish(_measure(options), options)


def _repeat(options: Namespace) -> int:
    """Run a document's command again and compare; status 1 if the numbers are others."""
    before = document.read(options.repeat)
    given = [f"--{name.replace('_', '-')}" for name in DEFAULTS if getattr(options, name) is not None]
    given += [] if options.target is None else ["TARGET"]
    if given:
        raise CommandError(f"--repeat takes everything from {options.repeat}: leave out {', '.join(given)}")
    again = repeat.options(before, options.repeat)
    _fill(again)
    done = _measure(again)
    status = _finish(done, options)
    if status:
        return status
    verdict = repeat.compare(before["results"], document.plain(done.results))
    tables.show([tables.Note(verdict.text(options.repeat, before.get("ntkest")))])
    return 0 if verdict.same else 1


def _fill(options: Namespace) -> None:
    """Defaults of `ntkest report`, which the parser leaves out so that --repeat can tell what was given."""
    if options.command != "report":
        return
    if options.target is None:
        raise CommandError("a TARGET is needed: module:function or file.py:function (or --repeat FILE)")
    for name, default in DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)


def _measure(options: Namespace) -> Run:
    with stages() as opened:
        return COMMANDS[options.command](options, opened)


def _finish(done: Run, options: Namespace) -> int:
    try:
        tables.show(done.sections)
        sys.stdout.flush()  # before anything on standard error
    finally:  # `ntkest demo --json FILE | head` closes the pipe, and is to have its file
        if options.json is not None:
            files.write(options.json, document.encode(done), options.force)
        if options.plot is not None:
            files.write(options.plot, _drawn(done, options.plot), options.force)
    return 130 if done.interrupted else 0


def _drawn(done: Run, path: str) -> bytes:
    if done.analysis is not None:
        return figures.analysis(done.analysis, done.title, path)
    return figures.draw(done.summaries, done.title, path)
