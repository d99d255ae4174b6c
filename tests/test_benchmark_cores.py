"""Processes of a benchmark on cores of their own."""

import subprocess
import sys

import pytest

from benchmarks.cores import available, pinned

SCRIPT = "import os; print(*sorted(os.sched_getaffinity(0)))"


@pytest.mark.skipif(not available(), reason="the system does not say which cores there are")
def test_what_is_started_keeps_to_its_cores_and_this_process_gets_its_own_back():
    before = available()
    with pinned({before[-1]}):
        child = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert child.stdout.split() == [str(before[-1])]
    assert available() == before
    with pinned([]):
        assert available() == before
