"""Runs what the documentation shows: the Python blocks of each page, and the example scripts. Follows links."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent
PAGES = [DOCS.parent / "README.md", *sorted(DOCS.glob("*.md"))]
LINKED = [*DOCS.parent.glob("*.md"), *sorted(DOCS.rglob("*.md"))]
SCRIPTS = sorted((DOCS / "examples").glob("*.py"))


def program(page: Path) -> str:
    """The Python blocks of a page, each on the lines where the page has it, so that errors point there."""
    lines, running = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = line.strip().startswith("```")
        lines.append(line if running and not fence else "")
        if fence:
            running = not running and line.strip() == "```python"
    return "\n".join(lines)


def run(script: Path, folder: Path) -> None:
    done = subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{script.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", [p for p in PAGES if program(p).strip()], ids=lambda p: p.name)
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.name}.py"
    script.write_text(program(page), encoding="utf-8")
    run(script, tmp_path)


def test_the_page_shows_what_the_demo_prints(tmp_path: Path) -> None:
    """But for the seconds, and the spaces that depend on how long they are."""
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    shown = next(block for block in re.findall(r"```text\n(.*?)```", page, re.DOTALL) if "whole network" in block)
    command = [sys.executable, "-m", "ntkest", "demo"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert _timeless(shown) == _timeless(printed), f"the page is to show what the demo prints now:\n{printed}"


def _timeless(text: str) -> list[str]:
    return re.sub(r"-+", "-", re.sub(r"\d+\.\d+ s\b", "# s", text)).split()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    run(script, tmp_path)


@pytest.mark.parametrize("page", LINKED, ids=lambda p: p.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in files if not (page.parent / link).exists()] == []
