"""The benchmark of the pipeline: its page comes from the numbers, and its images and network are what it says."""

import json

import numpy as np
import pytest

from benchmarks import __main__, pipeline, pipeline_data

pytestmark = pytest.mark.needs("torch", "sklearn")

SMALL = [
    "--drawn",
    "80",
    "--train",
    "70",
    "--held",
    "30",
    "--widths",
    "8",
    "16",
    "--epochs",
    "2",
    "--dim",
    "128",
    "--size",
    "9",
]


def test_images_held_out_show_other_digits(monkeypatch):
    """Each digit is told by a mark of its own, which the scene shows in place of the digit."""
    from sklearn.datasets import load_digits

    monkeypatch.setattr(pipeline_data, "_scene", lambda draw, digit: np.tile(digit.mean(), (3, 16, 16)))
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: _numbered(load_digits()))
    (train, labels), (held, truth) = pipeline_data.images(2000, 500)
    train, held = (np.round((a[:, 0, 0, 0] * 0.25 + 0.5) * 16).astype(int) for a in (train, held))
    assert not set(train) & set(held)
    assert len(set(train)) == pipeline_data.DIGITS
    assert len(set(held)) == 360
    answers = load_digits().target
    assert np.array_equal(answers[train], labels)
    assert np.array_equal(answers[held], truth)


def _numbered(raw):
    raw.images = np.broadcast_to(np.arange(len(raw.target))[:, None, None], raw.images.shape)
    return raw


def test_images_are_colourful_and_the_same_each_time():
    (images, labels), _ = pipeline_data.images(50, 10)
    again = pipeline_data.images(50, 10)[0][0]
    assert images.shape == (50, 3, 16, 16)
    assert images.dtype == np.float32
    assert np.array_equal(images, again)
    assert set(labels) <= set(range(10))
    assert abs(images.mean()) < 0.2
    assert 0.8 < images.std() < 1.4
    assert np.abs(images[:, 0] - images[:, 1]).mean() > 0.3


def test_the_digit_is_where_its_pixels_are():
    """Half of the digit is ink, and that half of the scene is of another colour than the rest."""
    draw = np.random.default_rng(0)
    pixels = np.zeros((8, 8))
    pixels[:, 4:] = 1
    scenes = np.stack([pipeline_data._scene(draw, pixels) for _ in range(300)])
    spread = scenes.mean(axis=1).std(axis=0)
    assert scenes.min() >= 0
    assert scenes.max() <= 1
    correlation = [np.corrcoef(scenes[:, 0, 8, 11], scenes[:, 0, 8, x])[0, 1] for x in (10, 3)]
    assert correlation[0] > correlation[1] + 0.2
    assert spread.min() > 0.1


def test_the_network_is_as_large_as_is_said():
    from benchmarks.pipeline_network import ResNet

    assert sum(p.numel() for p in ResNet().parameters()) >= 1_000_000


def test_a_small_run_writes_its_files(tmp_path, monkeypatch, capsys):
    """In this process: new ones each import torch."""
    from benchmarks.pipeline_worker import perform

    monkeypatch.setattr(pipeline, "_run", lambda task: json.loads(json.dumps(perform(task))))
    given = [*SMALL, "--others", "4", "9", "--threads", "1"]
    weights = tmp_path / "weights.pt"
    pipeline.main([*given, "--weights", str(weights), "--folder", str(tmp_path)])
    found = json.loads((tmp_path / "pipeline.json").read_text())
    assert found["command"] == "python -m benchmarks pipeline " + " ".join(given)
    assert [step["name"] for step in found["steps"]] == ["distill", "metrics", "analysis"]
    assert 0 < found["projection_seconds"] < found["steps"][0]["seconds"]
    assert 0 < found["before_mebibytes"] <= found["steps"][0]["peak_mebibytes"] <= found["steps"][2]["peak_mebibytes"]
    assert found["ledger"]["counts"]["P"] == found["network"]["parameters"]
    assert 700 <= found["ledger"]["distilled"]["gradients"] < 720  # those of an example more, to see their shapes
    rows = {(row["compression"], row["size"]): row for row in found["compressions"]}
    assert set(rows) == {(name, s) for name in ("local-global", "global", "uniform") for s in (4, 9)}
    same = rows["local-global", 9]  # by another way to the same numbers
    assert same["fidelity"] == pytest.approx(found["scores"]["fidelity"])
    assert same["logit_mse"] == pytest.approx(found["scores"]["logit_mse"], rel=1e-3)
    assert found["uncompressed"]["fidelity"] == pytest.approx(found["scores"]["uncompressed_fidelity"])

    page = (tmp_path / "pipeline.md").read_text()
    assert f"has {found['network']['parameters']:,} parameters" in page
    assert f"| fidelity to the network | {found['scores']['fidelity']:.3f} |" in page
    assert "15 minutes are allowed for the whole, and 4 GiB: enough." in page
    capsys.readouterr()
    __main__.main(["table", str(tmp_path / "pipeline.json")])
    assert capsys.readouterr().out == page
    pipeline.main(["--render", "--folder", str(tmp_path)])
    assert (tmp_path / "pipeline.md").read_text() == page


def test_a_trained_network_is_taken_again_only_for_the_same_training(tmp_path):
    from benchmarks.pipeline_worker import perform

    task = {"work": "train", "threads": 1, "drawn": 20, "held": 10, "widths": [8], "epochs": 1}
    task["weights"] = str(tmp_path / "weights.pt")
    first = perform(task)
    assert perform(task) == first  # with the seconds of then
    with pytest.raises(SystemExit, match=r"'epochs': 1.*name another file"):
        perform({**task, "epochs": 2})


@pytest.mark.parametrize("given", [["--train", "0"], ["--widths", "8", "12"], ["--drawn", "1999"]])
def test_sizes_that_cannot_be_are_refused(given, tmp_path, capsys):
    with pytest.raises(SystemExit):
        pipeline.main([*given, "--folder", str(tmp_path)])
    assert given[0] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
