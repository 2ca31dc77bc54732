# LLM-assisted: prompts P6, see report.md
"""Writes report.md and README.md's results table from `results/` and `figures/`.

    python -m cvassign.report [--check] [--redraw]

No number is typed by hand: each is an entry of a result file or computed from some (see
`report_numbers`), and a test computes them all again. A figure is drawn when what it shows has
changed, measurements of stored models when their weights have; both need CIFAR-10. With --check
nothing is written, and the exit code is 1 if something would change.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from cvassign import report_clip, report_frame, report_sections
from cvassign.files import replacing
from cvassign.report_numbers import plain
from cvassign.report_results import PREFIX, Report
from cvassign.report_sections import join
from cvassign.results import ROOT

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
MAX_FIGURES = 20
HEAD = """<!-- LLM-assisted: prompts P6, see "LLM declaration"; written by `make report` -->
# Report: ViT, Diff-ViT and CLIP

Written by `python -m cvassign.report` from the files in `results/` and `figures/`: each number is \
an entry of a result file or computed from some, each text beside it was chosen by them. The \
notebooks show the same results with the code."""


@dataclass(frozen=True)
class Built:
    """What a generation gives."""

    report: str  # with marked numbers, see `report_numbers`
    table: str  # of README.md, marked too
    state: Report


def build(
    root: Path = ROOT,
    presets: tuple[str, ...] = ("full", "cpu"),
    draw: bool = True,
    redraw: bool = False,
) -> Built:
    """The whole report and the README's table.

    Args:
        root: holds `results/`, `figures/`, `notebooks/`.
        presets: whose results may be shown, the better first.
        draw: draw and measure what is missing; else only note it in the state.
        redraw: draw every figure anew.
    """
    r = Report(root / "results", root / "figures", presets, draw, redraw)
    body = join(
        HEAD,
        report_frame.abstract(r),
        report_frame.protocol(r),
        *report_sections.sections(r),
        *report_clip.sections(r),
        report_frame.speed(r),
        report_frame.did_not_work(r),
        report_frame.limits(r),
        report_frame.declaration(r, root),
        report_frame.references(r),
    )
    whole = join(body, report_frame.appendix(r, root, plain(body))) + "\n"
    if len(r.used) > MAX_FIGURES:
        raise ValueError(
            f"expected at most {MAX_FIGURES} figures, got {len(r.used)}: {sorted(r.used)}"
        )
    return Built(whole, report_frame.headline(r), r)


def in_readme(readme: str, table: str) -> str:
    """The README with the table between its two markers.

    Raises:
        ValueError: unless each marker is there once, the first before the second.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before + after:
        raise ValueError(f"expected {BEGIN} and then {END} once each in README.md")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def run(
    root: Path = ROOT,
    presets: tuple[str, ...] = ("full", "cpu"),
    check: bool = False,
    redraw: bool = False,
) -> list[str]:
    """Writes everything; with `check` nothing. Returns the files that changed, or would.

    Raises:
        ValueError: if README.md lacks the markers.
    """
    built = build(root, presets, draw=not check, redraw=redraw)
    r = built.state
    changed = list(r.changed)
    readme = root / "README.md"
    texts = {root / "report.md": plain(built.report)}
    if readme.exists():
        texts[readme] = in_readme(readme.read_text(), plain(built.table))
    for path, text in texts.items():
        if not path.exists() or path.read_text() != text:
            changed.append(path.name)
            if not check:
                with replacing(path) as temporary:
                    temporary.write_text(text)
    for path in sorted((root / "figures").glob(f"{PREFIX}*.png")):
        if path.name not in r.used:  # of an experiment that is gone
            changed.append(path.name)
            if not check:
                path.unlink()
    for note in r.notes:
        print(note, file=sys.stderr)
    return changed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m cvassign.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; 1 if something would change"
    )
    parser.add_argument("--redraw", action="store_true", help="draw every figure anew")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder with results/ and figures/")
    parser.add_argument("--presets", default="full,cpu", help="whose results, the better first")
    given = parser.parse_args(arguments)
    changed = run(given.root, tuple(given.presets.split(",")), given.check, given.redraw)
    if changed:
        print(("would change: " if given.check else "written: ") + ", ".join(changed))
    else:
        print("nothing has changed")
    return int(given.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
