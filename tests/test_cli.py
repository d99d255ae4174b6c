"""The command line on explicit Jacobians: numbers, files, repeating, and one line for each thing that goes wrong."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

import ntkest
from ntkest import prior
from ntkest.report import demo, figures
from ntkest.report.cli import main

MODEL = """
import numpy as np
import ntkest

A = np.random.default_rng(3).standard_normal((24, 90)) * np.linspace(0.3, 2, 90)
LABELS = [0, 1, 2, 0, 1, 2, 0, 1]


def make():
    return ntkest.from_jacobian({"first.weight": A[:, :30], "first.bias": A[:, 30:40], "last": A[:, 40:]}, (8, 3))


def labels():
    return np.array(LABELS)


def words():
    return np.array(["cat"] * 8)


def infinite():
    return np.full((8, 3), np.inf)


def nonfinite():
    broken = A.copy()
    broken[0, 0] = np.nan
    return ntkest.from_jacobian(broken, (8, 3))


def zero():
    return ntkest.from_jacobian(np.zeros((6, 5)), (3, 2))


def raises():
    raise RuntimeError("no data\\nin this folder")


def leaves():
    raise SystemExit("good bye")


def needs(argument):
    return make()


def nothing():
    pass


def alone():
    return (make,)


constant = 3.0


class Stopped:
    def __init__(self, J, calls):
        self.J, self.calls = J, calls

    def __getattr__(self, name):
        return getattr(self.J, name)

    def map_vjp(self, *args, **keywords):
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return self.J.map_vjp(*args, **keywords)


def stopped_at_once():
    return Stopped(make(), 0)


def stopped_later():
    A = np.random.default_rng(0).standard_normal((900, 1000)) / np.arange(1, 1001) ** 0.6
    return Stopped(ntkest.from_jacobian(A, (90, 10)), 3)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An otherwise empty folder with a model, in which commands run."""
    (tmp_path / "model.py").write_text(MODEL, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import no_such_framework\n", encoding="utf-8")
    (tmp_path / "syntax.py").write_text("def make(:\n", encoding="utf-8")
    (tmp_path / "taken.json").write_text("{}", encoding="utf-8")
    (tmp_path / "taken.png").write_bytes(b"")
    (tmp_path / "empty.csv").write_text("", encoding="utf-8")
    (tmp_path / "text.npy").write_text("hello", encoding="utf-8")
    np.save(tmp_path / "short.npy", np.arange(3))
    np.save(tmp_path / "large.npy", np.arange(8))
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.arange(8) % 3, b=np.arange(3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NTKEST_TRACEBACK", raising=False)
    return tmp_path


def kernel():
    """J, A and labels of MODEL."""
    names = {}
    exec(MODEL, names)
    return names["make"](), names["A"], names["labels"]()


def results(path):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


# Numbers --------------------------------------------------------------------------------------------------------------


def test_the_report_has_the_numbers_of_the_explicit_kernel(folder, capsys):
    _, A, labels = kernel()
    argv = ["report", "model.py:make", "--targets", "model.py:labels", "--method", "exact", "--json", "out.json"]
    assert main(argv) == 0
    K, Y = A @ A.T, np.eye(3)[labels].ravel() - 1 / 3
    oracle = {
        "trace": np.trace(K),
        "frobenius_norm": np.linalg.norm(K),
        "effective_rank": np.trace(K) ** 2 / np.linalg.norm(K) ** 2,
        "alignment": Y @ K @ Y / (Y @ Y * np.linalg.norm(K)),
    }
    document = results(folder / "out.json")
    found = {name: e["value"] for name, e in document["results"]["estimates"].items()}
    assert found == pytest.approx(oracle, rel=1e-12)
    assert document["command"] == "report"
    assert document["target"] == "model.py:make"
    assert document["options"]["method"] == "exact"
    printed = capsys.readouterr().out
    assert f"{np.trace(K):,.1f}" in printed
    assert "Exact to rounding." in printed


def test_sampling_options_reach_the_estimators(folder):
    J, _, labels = kernel()
    argv = ["report", "model.py:make", "--targets", "model.py:labels", "--passes", "12", "--method", "forward"]
    argv += ["--seed", "5", "--by", "layer", "--centered", "--memory", "1MB", "--json", "out.json"]
    assert main(argv) == 0
    direct = ntkest.summary(J, labels, passes=12, method="forward", seed=5, by="layer", centered=True, memory="1MB")
    assert results(folder / "out.json")["results"] == json.loads(json.dumps(direct.to_dict()))


def test_a_tolerance_that_was_missed_is_said(folder, capsys):
    assert main(["report", "model.py:make", "--rtol", "1e-4", "--max-passes", "20", "--method", "reverse"]) == 0
    assert "was not reached for trace, Frobenius norm, effective rank" in capsys.readouterr().out.replace("\n", " ")


def test_by_layer_prints_every_part(folder, capsys):
    assert main(["report", "model.py:make", "--by", "parameter", "--method", "exact"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("first", "last"))] == [
        "first.weight",
        "first.bias",
        "last",
    ]
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize(
    "source", ["large.csv", "named.csv", "reals.csv", "labels.npy", "one.npz", "two.npz:a", "model.py:labels"]
)
def test_every_source_of_the_same_labels_gives_the_same_alignment(folder, source):
    labels = np.array(kernel()[2])
    np.savetxt(folder / "large.csv", labels, fmt="%d")
    np.savetxt(folder / "named.csv", labels, fmt="%d", header="digit", comments="")
    np.savetxt(folder / "reals.csv", np.eye(3)[labels] - 1 / 3, delimiter=",")
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    np.savez(folder / "one.npz", y=labels)
    np.savez(folder / "two.npz", a=labels, b=labels[:3])
    argv = ["report", "model:make", "--targets", source, "--method", "exact", "--json", "out.json"]
    assert main(argv) == 0
    wanted = float(ntkest.alignment(kernel()[0], labels, method="exact"))
    assert results(folder / "out.json")["results"]["estimates"]["alignment"]["value"] == pytest.approx(wanted, rel=1e-9)


def test_a_model_may_import_from_its_folder_when_it_is_called(folder):
    late = """
import ntkest
from model import make as inner


class Late:
    def __init__(self, J):
        self.J = J

    def __getattr__(self, name):
        return getattr(self.J, name)

    def map_vjp(self, *args, **keywords):
        import beside_late

        return self.J.map_vjp(*args, **keywords)


def make():
    return Late(inner())
"""
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "late.py").write_text(late, encoding="utf-8")
    (folder / "elsewhere" / "model.py").write_text(MODEL, encoding="utf-8")
    (folder / "elsewhere" / "beside_late.py").write_text("", encoding="utf-8")
    before = list(sys.path)
    assert main(["report", "elsewhere/late.py:make", "--method", "reverse", "--passes", "8"]) == 0
    assert sys.path == before


# Repeating ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def document(folder):
    """A document of an earlier run, and its path."""
    argv = ["report", "model.py:make", "--targets", "two.npz:a", "--seed", "7", "--by", "layer", "--centered"]
    assert main([*argv, "--rtol", "0.3", "--method", "reverse", "--json", "first.json"]) == 0
    return results(folder / "first.json"), folder / "first.json"


def test_a_run_repeats_identically(document, capsys):
    assert main(["report", "--repeat", "first.json", "--json", "second.json"]) == 0
    assert "numbers of first.json are identical" in capsys.readouterr().out.replace("\n", " ")
    first, path = document
    second = results(path.with_name("second.json"))
    assert second["options"] == first["options"]
    assert second["results"] == first["results"]


@pytest.mark.parametrize(("change", "status"), [(1e-15, 0), (1e-6, 1), (-0.5, 1)])
def test_a_changed_number_is_found_unless_it_is_rounding(document, capsys, change, status):
    written, path = document
    written["results"]["estimates"]["trace"]["parts"]["last"]["value"] *= 1 + change
    path.write_text(json.dumps(written), encoding="utf-8")
    assert main(["report", "--repeat", "first.json"]) == status
    printed = capsys.readouterr().out.replace("\n", " ")
    assert ("NOT repeated: 1 of" if status else "Repeated to rounding: 1 of") in printed
    assert "estimates.trace.parts.last.value" in printed


def test_another_number_of_passes_and_a_missing_estimate_do_not_repeat(document):
    written, path = document
    written["results"]["passes"] += 1
    path.write_text(json.dumps(written), encoding="utf-8")
    assert main(["report", "--repeat", "first.json"]) == 1
    written["results"]["passes"] -= 1
    del written["results"]["estimates"]["alignment"]
    path.write_text(json.dumps(written), encoding="utf-8")
    assert main(["report", "--repeat", "first.json"]) == 1


def test_a_model_that_changed_does_not_repeat(document, folder):
    (folder / "model.py").write_text(MODEL.replace("default_rng(3)", "default_rng(4)"), encoding="utf-8")
    assert main(["report", "--repeat", "first.json"]) == 1


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_are_replaced_only_by_force_and_whole(folder):
    argv = ["report", "model.py:make", "--method", "exact", "--json", "taken.json"]
    assert main(argv) == 2
    assert (folder / "taken.json").read_text() == "{}"
    assert main([*argv, "--force"]) == 0
    assert results(folder / "taken.json")["schema"] == "ntkest-report/1"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="plots need matplotlib")
@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_plots_come_in_the_format_of_their_ending(folder, name, start):
    assert main(["report", "model.py:make", "--by", "layer", "--passes", "12", "--plot", name]) == 0
    assert (folder / name).read_bytes().startswith(start)


# What goes wrong ------------------------------------------------------------------------------------------------------

BAD = [
    ([], "COMMAND"),
    (["reprot"], "invalid choice: 'reprot'"),
    (["report"], "a TARGET is needed"),
    (["report", "model"], "not of the form module:function"),
    (["report", "modle:make"], "there is no module 'modle'"),
    (["report", "syntax:make"], "SyntaxError"),
    (["report", "broken:make"], "python -m pip install no_such_framework"),
    (["report", "broken.py:make"], "No module named 'no_such_framework' (broken.py:1)"),
    (["report", "none.py:make"], "there is no file none.py"),
    (["report", "model.py:mak"], "there is no 'mak' in model.py; it has make"),
    (["report", "model.py:constant"], "model.py:constant is a float"),
    (["report", "model.py:raises"], "raised RuntimeError: no data in this folder (model.py:"),
    (["report", "model.py:leaves"], "raised SystemExit: good bye"),
    (["report", "model.py:needs"], "missing 1 required positional argument"),
    (["report", "model.py:nothing"], "returned nothing; it should return a Linearization"),
    (["report", "model.py:labels"], "returned a ndarray"),
    (["report", "model.py:alone"], "returned a tuple of function"),
    (["report", "model.py:nonfinite"], "NaN"),
    (["report", "model.py:zero"], "the kernel is zero"),
    (["report", "model.py:make", "--targets", "none.npy"], "there is no file none.npy"),
    (["report", "model.py:make", "--targets", "labels"], "takes a file"),
    (["report", "model.py:make", "--targets", "short.npy"], "integer labels have shape (3,)"),
    (["report", "model.py:make", "--targets", "large.npy"], "labels run from 0 to 7, but there are 3 outputs"),
    (["report", "model.py:make", "--targets", "objects.npy"], "cannot read objects.npy"),
    (["report", "model.py:make", "--targets", "text.npy"], "cannot read text.npy"),
    (["report", "model.py:make", "--targets", "two.npz"], "name one as two.npz:NAME"),
    (["report", "model.py:make", "--targets", "two.npz:c"], "has no array 'c'"),
    (["report", "model.py:make", "--targets", "empty.csv"], "holds no numbers"),
    (["report", "model.py:make", "--targets", "model.py:words"], "targets must be real numbers or integer labels"),
    (["report", "model.py:make", "--targets", "model.py:infinite"], "targets hold NaN or infinity"),
    (["report", "model.py:make", "--method", "magic"], "invalid choice: 'magic'"),
    (["report", "model.py:make", "--rtol", "0"], "a positive number is needed, not '0'"),
    (["report", "model.py:make", "--rtol", "nan"], "a positive number is needed, not 'nan'"),
    (["report", "model.py:make", "--passes", "-3"], "a positive whole number is needed"),
    (["report", "model.py:make", "--passes", "1"], "too few"),
    (["report", "model.py:make", "--seed", "x"], "a whole number from 0 on is needed"),
    (["report", "model.py:make", "--by", "row"], "invalid choice: 'row'"),
    (["report", "model.py:make", "--memory", "much"], "memory= takes a positive number of bytes"),
    (["report", "model.py:make", "--json", "taken.json"], "give --force"),
    (["report", "model.py:make", "--json", "no/such/folder.json"], "there is no folder"),
    (["report", "model.py:make", "--json", "."], "it is a folder"),
    (["report", "model.py:make", "--json", "a.png", "--plot", "a.png"], "both name a.png"),
    (["report", "model.py:make", "--plot", "a.gif"], "ends in .png, .svg, .pdf"),
    (["report", "--repeat", "none.json"], "cannot read none.json"),
    (["report", "--repeat", "model.py"], "is not JSON"),
    (["report", "--repeat", "taken.json"], "was not written by this version's --json"),
    (["report", "model.py:make", "--repeat", "taken.json", "--seed", "0"], "schema"),
    (["demo", "model.py:make"], "unrecognized arguments"),
    (["demo", "--rtol", "soon"], "a positive number is needed"),
    (["demo", "--json", "taken.json"], "give --force"),
]


@pytest.mark.parametrize(("argv", "said"), BAD, ids=[" ".join(argv) or "nothing" for argv, _ in BAD])
def test_each_bad_input_is_one_line_and_status_2(folder, capsys, argv, said):
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("ntkest: error: ")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith("\n")
    assert said in captured.err


def test_repeat_refuses_other_options_and_changed_documents(document, folder, capsys):
    assert main(["report", "model.py:make", "--repeat", "first.json", "--seed", "0"]) == 2
    assert "leave out --seed, TARGET" in capsys.readouterr().err
    for change in (
        {"options": {"method": "magic"}},
        {"options": {"unknown": 1}},
        {"options": []},
        {"command": "distill"},
        {"target": None},
        {"results": 3},
    ):
        (folder / "changed.json").write_text(json.dumps({**document[0], **change}), encoding="utf-8")
        assert main(["report", "--repeat", "changed.json"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("ntkest: error: ")
        assert error.count("\n") == 1


def test_extras_that_are_missing_are_named(folder, capsys, monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert main(["demo"]) == 2
    assert "python -m pip install scikit-learn autograd" in capsys.readouterr().err
    monkeypatch.setattr(figures, "find_spec", lambda name: None)
    assert main(["report", "model.py:make", "--plot", "a.png"]) == 2
    assert "python -m pip install matplotlib" in capsys.readouterr().err


def test_a_traceback_is_shown_when_asked_for(folder, capsys, monkeypatch):
    assert main(["report", "model.py:raises", "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("NTKEST_TRACEBACK", "1")
    assert main(["report", "model.py:raises"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_keeps_the_probes_so_far(folder, capsys):
    argv = ["report", "model.py:stopped_later", "--method", "reverse", "--rtol", "1e-3", "--json", "part.json"]
    assert main(argv) == 130
    assert "Interrupted" in capsys.readouterr().out
    part = results(folder / "part.json")
    assert part["interrupted"] is True
    assert math.isfinite(part["results"]["estimates"]["trace"]["value"])


def test_ctrl_c_in_the_exact_passes_falls_back_on_the_probes_before(folder, capsys, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prior, "exact", stopped)
    assert main(["report", "model.py:make", "--rtol", "1e-3"]) == 130
    printed = capsys.readouterr().out
    assert "Interrupted" in printed
    assert "exact" not in printed


def test_ctrl_c_before_any_number_says_so(folder, capsys):
    assert main(["report", "model.py:stopped_at_once"]) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "ntkest: interrupted\n"


# The program ----------------------------------------------------------------------------------------------------------


def test_the_program_says_its_version_and_imports_nothing_heavy_for_help():
    version = subprocess.run([sys.executable, "-m", "ntkest", "--version"], capture_output=True, text=True, check=True)
    assert version.stdout == f"ntkest {ntkest.__version__}\n"
    code = (
        "import sys\nfrom ntkest.report.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print(*{'scipy', 'matplotlib', 'sklearn', 'rich', 'autograd', 'torch', 'jax'}.intersection(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "report the kernel of your own model" in run.stdout
    assert run.stdout.splitlines()[-1] == ""


def test_a_pipe_that_closes_is_no_traceback_and_the_file_is_written(folder):
    command = [sys.executable, "-m", "ntkest", "report", "model.py:make", "--method", "exact", "--json", "out.json"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    program.stdout.close()
    error = program.stderr.read()
    program.wait()
    program.stderr.close()
    assert error == ""
    assert results(folder / "out.json")["target"] == "model.py:make"
