# LLM-assisted: prompts P6, P8, see report.md
"""The report's numbers are those of the results."""

import re

import pytest

from cvassign import report
from cvassign.results import ROOT, ResultError


@pytest.mark.parametrize("name", report.FILES)
def test_filling_again_changes_nothing(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert report.MARKER.search(text) and report.filled(text) == text


@pytest.mark.parametrize("key", (
    "best vit", 'patch vit "patch 3" test', "study/none mean .2f", "best gan test",
    "study/headline over/mean .2f",
))  # fmt: skip
def test_a_marker_that_nothing_fills_is_named(key):
    with pytest.raises(ResultError, match=re.escape(repr(key))):
        report.filled(f"a <!--= {key} -->1<!--/--> b")


def test_every_decimal_number_of_the_report_comes_from_a_result():
    """But for the prompts, the table of the literature, and what is no measurement."""
    text = (ROOT / "report.md").read_text(encoding="utf-8").split("## LLM declaration")[0]
    text = re.sub(r"<!--literature-->.*?<!--/literature-->", "", text, flags=re.DOTALL)
    text = report.MARKER.sub("", text)
    text = re.sub(r"(?m)^#.*$|`[^`]*`|arXiv \S+|\(sheet [\d.]+\)|sections? [\d., and]+", "", text)
    loose = re.findall(r"(?<![\d.])\d+\.\d+(?![\d.])", text)
    assert not [n for n in loose if not re.fullmatch(r"[123]\.[1-5]", n)]
