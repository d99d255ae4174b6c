"""The study of tolerances runs, finds the least cost, and makes its page from its JSON."""

import json

import pytest

from benchmarks import __main__, tolerance, tolerance_page


def test_it_runs_and_makes_its_page(tmp_path, capsys):
    arguments = ["tolerance", "--seeds", "5", "--named", "2", "--size", "80", "--only", "rank-5", "half-rank"]
    __main__.main([*arguments, "--folder", str(tmp_path)])
    raw = json.loads((tmp_path / "tolerance.json").read_text())
    page = (tmp_path / "tolerance.md").read_text()
    assert page == tolerance_page.markdown(raw)
    __main__.main(["table", str(tmp_path / "tolerance.json")])
    assert page in capsys.readouterr().out
    assert raw["held_out"] == ["half-rank"]
    for cell in raw["cells"]:
        assert cell["passes"] > 0
        if cell["operator"] == "rank-5" and cell["kind"] == "tolerance" and cell["method"] != "reverse":
            assert cell["within"] == 1.0
        if cell["operator"] == "rank-5" and cell["kind"] == "least":
            assert cell["passes"] <= 2 * 6 + 2  # a sketch of six columns has five dimensions


@pytest.mark.parametrize("gallop", [False, True])
@pytest.mark.parametrize("wanted", [4, 5, 16, 17, 99, 100, 101])
def test_the_least_is_found_with_and_without_an_end_in_sight(wanted, gallop):
    found = tolerance._first(lambda passes: passes >= wanted, 4, 100, gallop)
    assert found == (wanted if wanted <= 100 else None)
