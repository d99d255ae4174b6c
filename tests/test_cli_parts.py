"""The pieces of the command line that have their own rules: numbers as text, files, and comparing documents."""

from __future__ import annotations

import math
import os
import re
import sys

import numpy as np
import pytest

from ntkest.problems import described
from ntkest.report import document, files, progress, repeat, tables
from ntkest.report.problems import CommandError


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (44514.03, 650.0, "44,510 ± 650"),
        (44514.03, 1234.0, "44,500 ± 1,200"),
        (0.611595, 0.0269, "0.612 ± 0.027"),
        (0.000991, 0.0000468, "0.000991 ± 0.000047"),
        (3.21e9, 4.1e7, "(3.210 ± 0.041)e+09"),
        (3.21e-9, 4.1e-11, "(3.210 ± 0.041)e-09"),
        (-5.4321, 0.5, "-5.43 ± 0.50"),
        (12.0, math.inf, "12 ± ∞"),
        (1.234, 5000.0, "1.2 ± 5,000"),
        (3.07e21, 8.3e23, "(0.031 ± 8.3)e+23"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (44514.03, 3.9e-11, "44,514"),
        (26.991234, 0.0, "26.991"),
        (1.2345678e12, 0.0, "1.2346e+12"),
        (0.0, 0.0, "0"),
    ],
)
def test_numbers_carry_two_digits_of_their_error(value, error, text):
    assert tables.with_error(value, error) == text


def test_the_text_of_a_number_is_within_half_a_digit_of_its_error():
    rng = np.random.default_rng(0)
    for _ in range(500):
        value = float(rng.choice([-1, 1]) * 10 ** rng.uniform(-12, 12))
        error = abs(value) * float(10 ** rng.uniform(-6, 1))
        text = tables.with_error(value, error).replace(",", "")
        power = 10.0 ** int(text.partition(")e")[2] or 0)
        shown = [float(part) * power for part in text.partition(")e")[0].lstrip("(").split(" ± ")]
        assert abs(shown[0] - value) <= 0.051 * error
        assert shown[1] == pytest.approx(error, rel=0.051)


def test_plain_tables_fit_eighty_columns_and_align(capsys):
    rows = [("group",), ("  a", "1", "22"), ("  long name", "333", "4")]
    note = tables.Note("word " * 40)
    tables.show(
        [tables.Facts("Title", [("label", "text " * 30), ("x", "y")]), tables.Table(("", "b", "c"), rows), note]
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "  long name  333   4" in lines
    assert "  a            1  22" in lines


def test_a_terminal_shows_by_rich_what_plain_text_shows(capsys, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "90")
    monkeypatch.delenv("NO_COLOR", raising=False)
    rows = [("group [red]",), ("  a", "1 ± 2", "22"), ("  long name", "333", "4")]
    sections = [
        tables.Facts("Title", [("label", "some text")]),
        tables.Table(("", "b", "c"), rows),
        tables.Note("Note."),
    ]
    tables.show(sections)
    plain = capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    tables.show(sections)
    rich = capsys.readouterr().out
    assert "\x1b[" in rich
    words = re.sub(r"\x1b\[[0-9;]*m|─|-{2,}", "", rich).split()
    assert words == re.sub(r"-{2,}", "", plain).split()


def test_progress_shows_on_a_terminal_only(capsys, monkeypatch):
    def work():
        with progress.stages() as stages, stages("training") as report:
            report(3, 10)

    work()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    work()
    assert "training: 3 of about 10" in capsys.readouterr().err
    pytest.importorskip("rich")
    monkeypatch.undo()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    work()
    assert "training" in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/null"), reason="a device file of POSIX")
def test_only_regular_files_are_replaced_and_links_stay_links(tmp_path):
    with pytest.raises(CommandError, match="not a regular file"):
        files.check("/dev/null", force=True)
    (tmp_path / "real.json").write_bytes(b"old")
    (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
    files.write(str(tmp_path / "link.json"), b"new", force=True)
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real.json").read_bytes() == b"new"


def test_what_is_not_finite_becomes_null():
    given = {"a": [math.nan, math.inf, 1.5], "b": {"c": -math.inf, 3: None}, "d": (True, 2)}
    assert document.plain(given) == {"a": [None, None, 1.5], "b": {"c": None, "3": None}, "d": [True, 2]}


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "out.json"
    path.write_bytes(b"old")

    def refuse(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(CommandError, match=r"cannot write .*: No space left on device"):
        files.write(str(path), b"new", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
    assert path.read_bytes() == b"old"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_files_get_the_usual_permissions(tmp_path):
    files.write(str(tmp_path / "ours"), b"", force=False)
    (tmp_path / "usual").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_differences_are_judged_at_the_scale_of_their_estimate():
    old = {"trace": {"value": 100.0, "std_error": 1e-12, "floor": 1e-15, "why": "one", "interval_95": [99.0, None]}}

    def with_entry(**entry):
        return repeat.compare(old, {"trace": {**old["trace"], **entry}})

    assert with_entry(why="another").different == 0
    assert with_entry(std_error=2e-12).same
    assert with_entry(value=100.0 * (1 + 5e-13)).same
    assert not with_entry(value=100.0 * (1 + 5e-12)).same
    assert not with_entry(interval_95=[99.0, 101.0]).same
    assert not with_entry(interval_95=[99.0]).same
    assert not with_entry(value=None).same
    worst = with_entry(value=110.0)
    assert worst.where == "trace.value"
    assert worst.worst == pytest.approx(10 / 110)


def test_a_coarse_dtype_does_not_excuse_a_large_difference():
    old = {"value": 1.0, "floor": 4 * 2.0**-7}
    assert repeat.compare(old, {**old, "value": 1.02}).same
    assert not repeat.compare(old, {**old, "value": 1.2}).same


def test_a_message_of_many_lines_becomes_one_of_bounded_length():
    line = described(ValueError("a\nb\n" + "c" * 5000))
    assert line.startswith("ValueError: a b ccc")
    assert "\n" not in line
    assert len(line) < 700
