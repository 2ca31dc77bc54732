# LLM-assisted: prompts P6, P8, P15, see report.md
"""The numbers in report, README and notebooks are those of the results."""

import json
import re

import pytest

from cvassign import report
from cvassign.results import ROOT, ResultError


@pytest.mark.parametrize("path", report.TEXTS, ids=lambda path: path.name)
def test_filling_again_changes_nothing(path):
    content = path.read_text(encoding="utf-8")
    assert report.filled_file(path) == content
    assert report.MARKER.search(content) or path.name == "viva.md"


@pytest.mark.parametrize(
    "key, expected",
    (
        ("reference vit test", "82.54 ± 0.40"),
        ('patch vit "patch 8" "train loss"', "0.923"),
        ('patch vit "patch 2" test - reference vit test', "−0.77"),
        ("best diff 'above 80'", "20 to 21"),
        ("json study/headline over\\ images/mean +.2f", "−0.89"),
        ("rank fxemoji/n07749582_lemon twin 'surface alone'", "1"),
        ("line 15 val 13 2 3", "1.47"),
    ),
)
def test_a_marker_is_filled_from_the_results(key, expected):
    marked = f"a <!--= {key} -->{{}}<!--/--> b"
    assert report.filled(marked.format(0)) == marked.format(expected)


@pytest.mark.parametrize(
    "key",
    ('patch vit "patch 3" test', "json study/none mean d", "json study/none", "rank lemon Keras"),
)
def test_a_marker_that_nothing_fills_is_named(key):
    with pytest.raises(ResultError, match=re.escape(repr(key))):
        report.filled(f"a <!--= {key} -->1<!--/--> b")


def test_a_table_has_the_rows_of_both_models():
    table = report.filled("<!--= table factorial vit diff --><!--/-->")
    assert "| 4 heads of width 32 † |" in table and "| 4 pairs, norm |" in table


def test_only_the_text_of_a_notebook_is_filled(tmp_path):
    assert {path.suffix for path in report.TEXTS} == {".md", ".ipynb"}
    marker = "<!--= reference vit parameters -->1<!--/-->"
    cells = [dict(cell_type=kind, source=[marker]) for kind in ("markdown", "code")]
    (tmp_path / "a.ipynb").write_bytes(json.dumps({"cells": cells}).encode())
    text, code = json.loads(report.filled_file(tmp_path / "a.ipynb"))["cells"]
    assert text["source"] == [marker.replace(">1<", ">811,146<")] and code["source"] == [marker]


def test_every_decimal_number_of_the_report_comes_from_a_result():
    """But for the prompts, the table of the literature, and what is no measurement."""
    text = (ROOT / "report.md").read_text(encoding="utf-8").split("## LLM declaration")[0]
    text = re.sub(r"<!--literature-->.*?<!--/literature-->", "", text, flags=re.DOTALL)
    text = report.MARKER.sub("", text)
    text = re.sub(r"(?m)^#.*$|`[^`]*`|arXiv \S+|\(sheet [\d.]+\)|sections? [\d., and]+", "", text)
    loose = re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", text)
    assert not [n for n in loose if not re.fullmatch(r"[123]\.[1-5]", n)]
