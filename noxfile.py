"""Every check of the project. `nox` runs the default ones, `nox -s NAME` one of them, `nox -l` lists them.

Each session builds its own environment and installs what it needs. A session that ran no test fails, and so does one
whose environment holds a framework that it should not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False  # py312 and py313 then count as skipped, in CI too

PYPROJECT = nox.project.load_toml("pyproject.toml")
CORE = PYPROJECT["project"]["dependencies"]
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
WORKERS = min(os.cpu_count() or 1, 4)


def group(name: str) -> tuple[str, ...]:
    """The requirements of a dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PYPROJECT, name)


LOWEST = [requirement.replace(">=", "==") for requirement in CORE]

FRAMEWORKS = {"autograd": group("autograd"), "torch": group("torch"), "jax": group("jax")}


# Style and types ------------------------------------------------------------------------------------------------------


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and which module may import which."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", env={"PYTHONPATH": f".{os.pathsep}backends"})


@nox.session
def types(session: nox.Session) -> None:
    """Strict types, with no framework installed: the frameworks are Any in every environment."""
    session.install(*group("types"), *CORE)
    session.run("mypy")


# Tests ----------------------------------------------------------------------------------------------------------------


@nox.session(name="tests-numpy")
def tests_numpy(session: nox.Session) -> None:
    """Core tests, workers of dask among them, and the adapter for HIPS autograd; on the lowest NumPy and SciPy."""
    _install(session, "autograd", more=[*LOWEST, *EXTRAS["app"], *EXTRAS["scale"]])
    _pytest(session, *_core(), "tests/numpy")


@nox.session(name="tests-torch")
def tests_torch(session: nox.Session) -> None:
    """The adapter for PyTorch, and what of the core tests meets it."""
    _install(session, "torch")
    _pytest(session, *_core(), "tests/torch", options=["--framework", "torch"])


@nox.session(name="tests-jax")
def tests_jax(session: nox.Session) -> None:
    """The adapter for JAX with Flax and Equinox, and what of the core tests meets it."""
    _install(session, "jax")
    _pytest(session, *_core(), "tests/jax", options=["--framework", "jax"])


@nox.session(name="tests-all")
def tests_all(session: nox.Session) -> None:
    """Agreement of all backends with each other, and the benchmarks on a small scale."""
    _install(session, "autograd", "torch", "jax", more=[*EXTRAS["app"], *EXTRAS["scale"]])
    _pytest(session, "tests/agreement", *_benchmarked())


@nox.session
def dist(session: nox.Session) -> None:
    """The wheel and the sdist, each in a fresh environment without frameworks, tried from an empty folder."""
    session.install("build")
    folder = Path(session.create_tmp(), "dist").resolve()
    shutil.rmtree(folder, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(folder), silent=True)
    packages = sorted(folder.iterdir())
    if [p.suffix for p in packages] != [".whl", ".gz"]:
        session.error(f"expected one wheel and one sdist, got {[p.name for p in packages]}")
    check = Path("tests/installed.py").resolve()
    for package in packages:
        home = folder.parent / package.suffix.strip(".")
        shutil.rmtree(home, ignore_errors=True)
        session.run("python", "-m", "venv", str(home / "env"))
        programs = home / "env" / ("Scripts" if os.name == "nt" else "bin")
        session.run(str(programs / "python"), "-m", "pip", "install", "--quiet", str(package), external=True)
        (home / "empty").mkdir()
        with session.chdir(home / "empty"):
            session.run(str(programs / "python"), "-I", str(check), external=True)
            session.run(str(programs / "ntkest"), "--version", external=True)
    session.log(f"{len(packages)} distributions installed and tried")


@nox.session
def docs(session: nox.Session) -> None:
    """The examples: Python blocks of README.md and docs/*.md, scripts of docs/examples, doctests; and the site."""
    _install(session, "autograd", "torch", "jax", more=[*EXTRAS["app"], *EXTRAS["scale"], *group("docs")])
    _pytest(session, "docs", options=["--doctest-modules", "ntkest", "backends"])
    session.run("sphinx-build", "-W", "--keep-going", "-q", "docs", str(Path(session.create_tmp(), "site")))


# By name only ---------------------------------------------------------------------------------------------------------


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """The lowest versions that pyproject.toml admits, of the frameworks too, on NumPy and JAX."""
    frameworks = [requirement.replace(">=", "==") for requirement in (*EXTRAS["autograd"], *EXTRAS["jax"])]
    _install(session, "autograd", "jax", more=[*LOWEST, *frameworks])
    _pytest(session, *_core(), "tests/numpy", "tests/jax")


@nox.session(python="3.12", default=False)
def py312(session: nox.Session) -> None:
    """Python 3.12, on NumPy and JAX; skipped where there is none."""
    _install(session, "autograd", "jax")
    _pytest(session, *_core(), "tests/numpy", "tests/jax")


@nox.session(python="3.13", default=False)
def py313(session: nox.Session) -> None:
    """Python 3.13, on NumPy and JAX; skipped where there is none."""
    _install(session, "autograd", "jax")
    _pytest(session, *_core(), "tests/numpy", "tests/jax")


@nox.session(default=False)
def statistics(session: nox.Session) -> None:
    """Slow tests: the mean, spread and coverage of estimators over many seeds."""
    _install(session, "autograd", "torch", "jax")
    _pytest(session, "tests", marked="slow")


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """A small run of the benchmark of passes; another one with arguments after two dashes: `-- passes --pairs 15`."""
    _install(session, "autograd", "torch", "jax", more=EXTRAS["app"])
    small = ["passes", "--pairs", "2", "--rounds", "1", "--starts", "1"]
    session.run("python", "-m", "benchmarks", *(session.posargs or small))


@nox.session(default=False)
def estimators(session: nox.Session) -> None:
    """The contest with other libraries' estimators, on a small scale; `-- --seeds 50` is the whole, about an hour."""
    session.install("-e", ".", *EXTRAS["app"], "-r", "benchmarks/peers.txt")
    folder = session.create_tmp()
    small = ["--seeds", "2", "--size", "200", "--budgets", "20", "120", "--work", folder]
    small += ["--json", str(Path(folder, "estimators.json")), "--markdown", str(Path(folder, "estimators.md"))]
    session.run("python", "-m", "benchmarks", "estimators", *(session.posargs or small))


# Helpers --------------------------------------------------------------------------------------------------------------


def _install(session: nox.Session, *frameworks: str, more: Sequence[str] = ()) -> None:
    """The project (editable), the test tools and just these frameworks, in one go so that pip sees every bound."""
    session.install("-e", ".", *group("test"), *(r for name in frameworks for r in FRAMEWORKS[name]), *more)
    find = f"from importlib.util import find_spec; print(*filter(find_spec, {list(FRAMEWORKS)}))"
    present = str(session.run("python", "-I", "-c", find, silent=True)).split()
    if sorted(present) != sorted(frameworks):
        session.error(f"this environment should hold {frameworks} and no other framework, but holds {present}")


def _pytest(session: nox.Session, *paths: str, marked: str = "not slow", options: Sequence[str] = ()) -> None:
    """Run pytest, and fail if a folder of `paths` ran no test: one that was skipped whole is no success."""
    report = Path(session.create_tmp(), "junit.xml").resolve()
    report.unlink(missing_ok=True)
    env = dict.fromkeys(["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"], "1")  # a core a worker
    spread = ["-n", str(WORKERS), "--dist", "worksteal"]
    arguments = ["-m", marked, *spread, "--junit-xml", str(report), *options, *paths, *session.posargs]
    session.run("python", "-m", "pytest", *arguments, env=env)
    cases = ElementTree.parse(report).iter("testcase")
    ran = [case.get("classname", "").replace(".", "/") for case in cases if case.find("skipped") is None]
    rooms = {path if Path(path).is_dir() else "tests/test_" for path in paths}
    for room in rooms if not session.posargs else ():
        if not any(name.startswith(room) for name in ran):
            session.error(f"no test of {room} ran")


def _core() -> list[str]:
    """The tests of the core: they run in every environment, over whatever arrays it has."""
    return sorted({str(path) for path in Path("tests").glob("test_*.py")} - {*_benchmarked()})


def _benchmarked() -> list[str]:
    """The tests of the benchmarks."""
    return sorted(str(path) for path in Path("tests").glob("test_benchmark_*.py"))
