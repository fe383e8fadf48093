"""Notebooks are code: cells are parsed in spite of magics, outputs searched for secrets."""

from __future__ import annotations

import json

import pytest

from purpleteam.scan import ScanResult, scan, to_sarif

KEY = "AKIA" + "Z3" * 8


def notebook(tmp_path, *cells, name="a.ipynb"):
    rows = [
        {"cell_type": "code", "source": cell.splitlines(keepends=True), "outputs": []}
        if isinstance(cell, str)
        else cell
        for cell in cells
    ]
    path = tmp_path / name
    path.write_text(json.dumps({"cells": rows, "nbformat": 4, "metadata": {}}))
    return path


def places(path, *scanners):
    result = scan([path], scanners or None)
    return [(one.rule, one.place["cell"], one.place["line"]) for one in result.findings]


def test_a_finding_is_placed_by_cell_and_line_and_names_hold_over_cells(tmp_path):
    words = {"cell_type": "markdown", "source": "torch.load(x)"}
    path = notebook(tmp_path, "import torch as t", words, "x = 1\nt.load(x)")
    assert places(path) == [("PT001", 3, 2)]


@pytest.mark.parametrize(
    "cell",
    [
        "%matplotlib inline\neval(x)",
        "!pip install torch \\\n  torchvision\neval(x)",
        "files = !ls\neval(x)",
        "%%time\neval(x)",
        "\n%%capture out\neval(x)",
        "%%writefile app.py\neval(x)",
        "%%unheard_of\neval(x)",
        "eval?\neval(x)",
        "for n in names:\n    !echo $n\neval(x)",
        "%timeit -n 3 eval(x)",
        "%cd ..\ny = (7\n % eval(x))",
    ],
)
def test_a_magic_does_not_cost_its_cell(tmp_path, cell):
    (found,) = places(notebook(tmp_path, cell), "ml-code")
    assert found[:2] == ("PT008", 1)
    assert "eval" in cell.split("\n")[found[2] - 1]


def test_a_cell_that_is_no_python_is_said_and_costs_no_other(tmp_path):
    path = notebook(tmp_path, "def f(:", "%%bash\nrm -rf x", "eval(x)")
    result = scan([path], ["ml-code"])
    assert [reason for _, reason in result.skipped] == ["rules: cell 1 is no Python"]
    found = [(one.rule, one.place.get("cell")) for one in result.findings]
    assert found == [("PT022", None), ("PT008", 3)]


@pytest.mark.parametrize("indent", [1, None])
def test_a_finding_knows_the_line_of_the_file_that_code_hosts_show(tmp_path, indent):
    shown = {"output_type": "stream", "text": ["one\n", f"key {KEY}\n"]}
    cells = [
        {"cell_type": "markdown", "source": ["eval(x)\n", "eval(x)"], "metadata": {"a": "eval(x)"}},
        {"cell_type": "code", "source": ["z = 1\n", "\n", "eval(x)"], "outputs": [shown]},
        {"cell_type": "code", "source": "y = 2\neval(x)", "outputs": []},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}, indent=indent))
    lines = path.read_text().splitlines()
    findings = scan([path], ["ml-code", "secrets"]).findings
    assert [one.place["line"] for one in findings] == [2, 3, 2]
    told = [lines[one.place["file_line"] - 1] for one in findings]
    assert all(text in line for text, line in zip([KEY, '"eval(x)', "y = 2"], told, strict=True))
    region = to_sarif(ScanResult(findings=findings[1:2]))["runs"][0]["results"][0]
    place = region["locations"][0]["physicalLocation"]["region"]
    assert place == {"startLine": findings[1].place["file_line"]}
    assert region["message"]["text"].endswith("(cell 2, line 3)")


@pytest.mark.parametrize(
    ("cell", "rules"),
    [
        ("%%writefile config.ini\n[a]\nb = c d", []),
        ("%%bigquery rows\nselect * from t", []),
        ("\n%%bash\nrm -rf x", []),
        ("%%writefile app.py\nprint 'x'", ["PT022"]),
        ("%%time\nprint 'x'", ["PT022"]),
    ],
)
def test_a_cell_of_another_language_is_nothing_unread_and_one_of_python_is(tmp_path, cell, rules):
    found = scan([notebook(tmp_path, "x = 1", cell)], ["ml-code"]).findings
    assert [one.rule for one in found] == rules


def test_bandit_reads_notebooks_too(tmp_path):
    path = notebook(tmp_path, "x = 1", "import os\n%time\nos.system(x)")
    assert ("B605", 2, 3) in places(path, "bandit")


@pytest.mark.parametrize(
    "output",
    [
        {"output_type": "stream", "text": ["one\n", f"key {KEY}\n"]},
        {"output_type": "execute_result", "data": {"text/plain": f"one\n'{KEY}'"}},
        {"output_type": "error", "traceback": ["one", f"\x1b[31m{KEY}\x1b[0m"]},
    ],
)
def test_a_secret_in_an_output_is_found(tmp_path, output):
    cell = {"cell_type": "code", "source": "show()", "outputs": [output]}
    (finding,) = scan([notebook(tmp_path, "x = 1", cell)], ["secrets"]).findings
    assert (finding.place["cell"], finding.place["line"]) == (2, 2)
    assert finding.message == "AWS access key in plain output"


def test_an_old_notebook_has_its_cells_in_worksheets(tmp_path):
    path = tmp_path / "old.ipynb"
    cells = [{"cell_type": "code", "input": "eval(x)", "outputs": []}]
    path.write_text(json.dumps({"worksheets": [{"cells": cells}], "nbformat": 3}))
    assert places(path, "ml-code") == [("PT008", 1, 1)]


@pytest.mark.parametrize("text", ["{}", "[]", "no json", '{"cells": [1]}', '{"cells": 3}'])
def test_what_is_no_notebook_is_skipped_and_said(tmp_path, text):
    (tmp_path / "a.ipynb").write_text(text)
    reasons = [reason for _, reason in scan([tmp_path]).skipped]
    assert any(reason.startswith("rules: no notebook") for reason in reasons)
    assert any(reason.startswith("secrets: no notebook") for reason in reasons)
