# LLM-assisted: prompts P6, see report.md
"""Every number of the report is in a result file, or follows from some; regenerating it changes
nothing; nothing of the assignment is left out.

`evaluate` computes a number once more from its origin (see `report_numbers`), with formulas of its
own where the package has one.
"""

import importlib
import json
import math
import re
import shutil
import statistics
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from cvassign import compare, imagenet, report, report_frame, report_models, report_numbers
from cvassign.clip import TEMPLATES, rn50
from cvassign.experiments import MODELS, SECTIONS, all_runs, experiment_runs
from cvassign.report_numbers import CLOSE, MIDDLE, OPEN, Number, Writer, plain
from cvassign.report_results import DREW, drawn_from
from cvassign.report_sections import cancelling
from cvassign.results import FORMAT, ROOT, run_config, save_weights, weights_path, write_json
from cvassign.vit import VisionTransformer, count_parameters

PRESET = "smoke"
README = f"# A title\n\n{report.BEGIN}\n{report.END}\n\nThe end.\n"
MARKED = re.compile(f"{OPEN}(\\d+){MIDDLE}([^{CLOSE}]*){CLOSE}")


# ------------------------------------------------------------------- numbers, once more


class Evaluator:
    """Computes a number from its origin and the files below one folder."""

    def __init__(self, results: Path):
        self.results = results

    def read(self, file: str) -> dict:
        return json.loads((self.results / file).read_text())

    def at(self, file: str, *keys):
        found = self.read(file)
        for key in keys:
            found = found[key]
        return found

    def __call__(self, origin):
        kind, *rest = origin
        return getattr(self, "_" + kind.replace(" ", "_"))(*rest)

    def _file(self, *path):
        return self.at(*path)

    def _key(self, *path):
        assert path[-1] in self.at(*path[:-1])
        return path[-1]

    def _code(self, module, name):
        found = importlib.import_module(module)
        for part in name.split("."):
            found = found[part] if isinstance(found, dict) else getattr(found, part)
        return found

    def _recipe(self, preset, part, key):
        return asdict(getattr(experiment_runs("reference", "vit", preset)[0], part))[key]

    def _label(self, file):
        """Any label that the file's run has in some experiment: all are data of the package."""
        name = file.removesuffix(".json")
        preset, _, name = name.partition("/")
        return {
            r.label
            for e in SECTIONS
            for m in MODELS
            for r in experiment_runs(e, m, preset)
            if r.file_name == file
        }

    def _mean(self, *parts):
        return math.fsum(self(p) for p in parts) / len(parts)

    def _std(self, *parts):
        return statistics.stdev(self(p) for p in parts)

    def _sum(self, *parts):
        return math.fsum(self(p) for p in parts)

    def _minus(self, a, b):
        return self(a) - self(b)

    def _over(self, a, b):
        return self(a) / self(b)

    def _product(self, a, b):
        return self(a) * self(b)

    def _times(self, a, factor):
        return self(a) * factor

    def _abs(self, a):
        return abs(self(a))

    def _log(self, a):
        return math.log(self(a))

    def _first(self, a):
        return self(a)[0]

    def _count(self, *things):
        for thing in things:  # files that are counted exist
            for file in thing if isinstance(thing, tuple) else (thing,):
                if isinstance(file, str) and file.endswith(".json"):
                    assert (self.results / file).exists(), file
        return len(things)

    def _planned(self, preset, experiment, model):
        return len(experiment_runs(experiment, model, preset))

    def _all_planned(self, preset):
        return len(all_runs(preset))

    def _sampling_error(self, accuracy, n):
        p = self(accuracy) / 100
        return 100 * math.sqrt(p * (1 - p) / self(n))

    def _percent_off(self, ratio):
        return abs(100 * (self(ratio) - 1))

    def _difference(self, which, *sides):
        if sides[0] == "configurations":
            means = [
                [self._mean(*(("file", f, "test_accuracy") for f in side)) for side in pair]
                for pair in sides[1:]
            ]
            d = [b - a for a, b in means]
        else:
            by_seed = [{self.at(f, "seed"): self.at(f, "test_accuracy") for f in s} for s in sides]
            d = [by_seed[1][s] - by_seed[0][s] for s in by_seed[0].keys() & by_seed[1].keys()]
        middle = statistics.fmean(d)
        if len(d) > 1:
            t = compare.t_quantile(0.975, len(d) - 1)  # held to tables by test_compare
            half = t * statistics.stdev(d) / math.sqrt(len(d))
        else:
            (p,), (q,) = (list(side.values()) for side in by_seed)
            n = 10_000 if self.at(sides[0][0], "config", "dataset") == "cifar10" else 200
            half = 1.96 * math.sqrt((p * (100 - p) + q * (100 - q)) / n)
        return {"mean": middle, "low": middle - half, "high": middle + half}[which]

    def _row_sum(self, file, key, row):
        return sum(self.at(file, key, row))

    def _row_share(self, file, key, row):
        return 100 * self.at(file, key, row, row) / sum(self.at(file, key, row))

    def _max(self, *path):
        return max(self.at(*path))

    def _first_above(self, file, what):
        history = self.at(file, "history")
        epoch = next(i for i, v in enumerate(history["val_accuracy"], start=1) if v >= 80)
        return epoch if what == "epoch" else sum(history["seconds"][:epoch]) / 60

    def _lambda_init(self, layer):
        return 0.8 - 0.6 * math.exp(-0.3 * (layer - 1))

    def _parameters(self, model, part):
        from torchvision.models import resnet50

        with torch.device("meta"):
            network = rn50().visual if model == "clip" else resnet50()
        heads, stages = ("attnpool.", "fc."), tuple(f"layer{i}." for i in range(1, 5))
        n = {name: p.numel() for name, p in network.named_parameters()}
        chosen = {
            "all": lambda k: True,
            "head": lambda k: k.startswith(heads),
            "stem": lambda k: not k.startswith(heads + stages),
        }
        return sum(
            v for k, v in n.items() if chosen.get(part, lambda k: k.startswith(f"{part}."))(k)
        )

    def _classes(self):
        return 1000

    def _inner_synsets(self):
        return len(set(imagenet.synsets()) - {c.wnid for c in imagenet.classes()})

    def _templates(self, name):
        return len(TEMPLATES[name])


def wrong_numbers(built: report.Built, results: Path) -> list[str]:
    """Printed numbers that their origin does not give."""
    evaluate, wrong = Evaluator(results), []
    for text, form, origin in built.state.writer.put_so_far:
        value = evaluate(origin)
        if isinstance(value, set):
            right = text in value
        else:
            right = text == report_numbers.printed(value, form)
        if not right:
            wrong.append(f"{text!r}, but {origin} gives {value!r}")
    return wrong


# ----------------------------------------------------------------- digits without an origin

NAMES = re.compile(
    r"CIFAR-10(-C)?|ResNet-50|RN50|\b[12]-D\b|DINOv2|ViT-S/14"
    r"|\b(pure_)?(float|fp|FP|bf|bfloat)(16|32)\b"
    r"|λA2|\bA1\b|16x16|arXiv \d{4}\.\d{4,5}|table 8 of the ViT paper|clip-rn50"
    r"|Prompts? P\d|\*\*P\d\*\*"
    r"|prompts P\d|`[\w./-]+\.(py|ipynb|md)`"
)
HEADING = re.compile(r"^#{2,3} ([1-3](\.\d)*)\b")


def typed_digits(marked: str) -> list[str]:
    """Lines of the report with digits that have no origin and are no name, number of a section,
    year of a reference, or word of the assignment."""
    text = MARKED.sub("", marked)
    body, _, appendix = text.partition("## Appendix")
    body, _, references = body.partition("## References")
    sections = {m[1] for line in text.splitlines() if (m := HEADING.match(line))}
    found = []
    for line in body.splitlines():
        rest = NAMES.sub("", line)
        rest = re.sub(
            r"^#{2,3} .*", lambda m: re.sub(r"(?<![\w.])\d(\.\d)*(?![\w])", "", m[0]), rest
        )
        rest = re.sub(r"assignment [1-3](\.\d)*", "", rest)
        if re.search(r"\d", rest):
            found.append(line)
    for line in references.splitlines():
        if re.search(r"\d", re.sub(r", (19|20)\d\d( \(\))?$", "", NAMES.sub("", line))):
            found.append(line)
    known = report_frame.headings(body)
    for name in report_frame.NOTEBOOKS.values():
        known += report_frame.notebook_headings(ROOT, name)
    for line in appendix.splitlines():
        for cell in (c.strip() for c in line.split("|")):
            words = {q for question in report_frame.QUESTIONS for q in question} | sections
            heading = re.search(r"\*(.+)\*$", cell)
            named = heading and heading[1] in known
            if (
                re.search(r"\d", cell)
                and cell not in words
                and not named
                and not re.search(r"^`[\w./]+`: `\w+`$", cell)
            ):
                found.append(cell)
    return found


# ------------------------------------------------------------------------ a tree of results


def fake_result(run, rng) -> dict:
    """A result file of a run as training would have written it, with random numbers."""
    epochs = run.train.epochs
    accuracy = sorted(rng.uniform(40, 95, epochs).tolist())
    history = {
        "train_loss": rng.random(epochs).tolist(),
        "val_loss": rng.random(epochs).tolist(),
        "train_loss_tenths": rng.random((epochs, 10)).tolist(),
        "val_accuracy": accuracy,
        "learning_rate": rng.random(epochs).tolist(),
        "seconds": rng.uniform(1, 9, epochs).tolist(),
    }
    if run.model.attention == "diff":
        history["lambdas"] = rng.random((epochs, run.model.depth)).tolist()
    return {
        "format": FORMAT,
        "name": run.name,
        "section": run.section,
        "label": run.label,
        "preset": run.preset,
        "seed": run.seed,
        "epochs": epochs,
        "config": run_config(run),
        "n_params": count_parameters(VisionTransformer(run.model)),
        "history": history,
        "val_accuracy": accuracy[-1],
        "test_accuracy": rng.uniform(40, 95),
        "train_seconds": math.fsum(history["seconds"]),
        "images_per_second": rng.uniform(10, 99),
        "device": "CPU (x86_64, threads: 3)",
        "versions": {"python": "3.12.1", "torch": "2.11.0"},
    }


def summary(rng) -> dict:
    rounds = sorted(rng.uniform(1, 9, 3).tolist())
    return {"median": rounds[1], "min": rounds[0], "max": rounds[2], "rounds": rounds}


def fake_bench(rng) -> dict:
    """As `bench.bench` writes it."""
    speeds = (
        "usual loop, timm's model",
        "our loop, our model",
        "our loop, our model, 25% of the patches",
    )
    row = {"patch_size": 4, "tokens": 65, "flop_per_image": 123_456_789}
    return {
        "format": 1,
        "device": "cpu: AMD 7",
        "threads": 2,
        "versions": {"torch": "2.11.0"},
        "preset": "cpu",
        "batch_size": 128,
        "training": {
            "images_per_second": {n: summary(rng) for n in speeds},
            "ours": speeds[1],
            "recipe_to_usual": summary(rng),
            "keep": 0.25,
            "keep_epochs": 2,
            "epochs": 3,
            **{k: summary(rng) for k in ("ours_to_usual", "waiting_alone", "loop_alone", "model_alone")},
        },
        "models": {"diff_to_vit": summary(rng)},
        "growth": {
            "rows": {
                n: row | {"ms_per_image": summary(rng)}
                for n in ("patch 2", "patch 4", "patch 8", "depth 2")
            }
        },
        "attention": {
            "tokens": {
                n: {"sdpa_to_formula": {"forward": summary(rng), "backward": summary(rng)}}
                for n in ("17", "65")
            }
        },
        "looking": {n: summary(rng) for n in ("prediction", "CLS maps", "rollout")},
        "share_of_peak": {"flop_per_second": 1e9, "float32": 0.7, "bfloat16": 0.3},
    }


def fake_twin(rng) -> dict:
    """As `twin_study.main` writes it."""

    def rates() -> dict:
        return {
            f"top5_{k}": {"mean": rng.random(), "std": rng.random()} for k in ("photo", "rendition")
        }

    return {
        "classifier": {
            "top5": {"photo": 0.93, "rendition": 0.41},
            "calibration": {"ece": rng.random()},
        },
        "untrained": {"top5": {"photo": rng.random(), "rendition": rng.random()}},
        "stored": {"calibration": {"ece": rng.random()}},
        "unseen_classes": {
            f"{k}_rendition": {"mean": rng.random(), "std": rng.random()}
            for k in ("unseen", "trained")
        },
        "variants": {n: rates() | {"runs": [{}, {}, {}]} for n in ("MLP", "linear", "without icons")},
        "data_card": [
            {
                "part": "test",
                "source": "a set 2.0",
                "photos": 3,
                "renditions": 14,
                "captioned": 0,
                "classes": 9,
                "licence": "CC-BY-4.0",
            }
        ],
    }


def fake_study(rng) -> dict:
    """As `robustness.study` gives it."""
    runs = [
        {
            "attention": a,
            "clean": 80.0,
            "seed": 0,
            "accuracy": {"blur": rng.uniform(20, 80, 5).tolist()},
        }
        for a in ("standard", "diff")
    ]
    d = {"mean": -1.5, "low": -2.25, "high": -0.75}
    return {
        "images": 9000,
        "severities": [1, 2, 3, 4, 5],
        "corruptions": {"blur": {}},
        "runs": runs,
        "differences": {k: d for k in ("blur", "clean", "lost to noise", "lost to the rest")},
    }


def make_tree(root: Path) -> Path:
    """Results of the whole smoke preset, the weights of two models, and all other studies."""
    rng = np.random.default_rng(0)
    results = root / "results"
    for run in all_runs(PRESET):
        write_json(fake_result(run, rng), results / run.file_name)
    for model in MODELS:
        run = experiment_runs("best", model, PRESET)[0]
        torch.manual_seed(0)
        save_weights(VisionTransformer(run.model), weights_path(run, results))
    write_json(fake_bench(rng), results / "bench/cpu.json")
    write_json(fake_twin(rng), results / "twin/twin.json")
    write_json(fake_study(rng), results / f"robustness/{PRESET}.json")
    precision = results / "precision/precision_cpu.json"
    precision.parent.mkdir()
    precision.write_bytes((ROOT / "results/precision/precision_cpu.json").read_bytes())
    (root / "README.md").write_text(README)
    return root


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A tree whose report is written, and what was built. Tests that change it copy it."""
    before, report_models.IMAGES = report_models.IMAGES, 20
    root = make_tree(tmp_path_factory.mktemp("tree"))
    changed = report.run(root, (PRESET,))
    report_models.IMAGES = before
    return root, changed, report.build(root, (PRESET,), draw=False)


@pytest.fixture
def tree(drawn, tmp_path):
    """A copy of the written tree."""
    return Path(shutil.copytree(drawn[0], tmp_path / "tree"))


# ------------------------------------------------------------------------------- the tests


def test_the_committed_report_is_what_the_results_give():
    assert report.run(check=True) == [], "make report"


def test_every_number_of_the_committed_report_is_in_a_result_file():
    built = report.build(draw=False)
    assert wrong_numbers(built, ROOT / "results") == []
    assert typed_digits(built.report) == []
    assert len(built.state.writer.put_so_far) > 100


def test_every_number_is_in_a_result_file(drawn):
    root, _, built = drawn
    assert wrong_numbers(built, root / "results") == []
    assert len(built.state.writer.put_so_far) > 500
    assert typed_digits(built.report) == []
    assert not re.search(r"\d", MARKED.sub("", built.table).replace("CIFAR-10", ""))
    assert not re.search(f"[{OPEN}{MIDDLE}{CLOSE}]", plain(built.report))


@pytest.mark.parametrize(
    "typed",
    [
        "It reaches 91.2 %.",
        "a gain of 3 points",
        "`0.05` of it",
        "| 64.78 |",
        "![a](figures/a2.png)",
        "see 1.2.1 and 12",
    ],
)
def test_a_typed_number_is_found(drawn, typed):
    marked = drawn[2].report
    at = marked.index("## 2 Differential")
    assert typed_digits(marked[:at] + typed + "\n\n" + marked[at:]) == [typed]


def test_a_wrong_number_is_found(drawn):
    root, _, built = drawn
    writer = Writer()
    file = experiment_runs("best", "vit", PRESET)[0].file_name
    writer.put(Number(1.25, ("file", file, "test_accuracy")), ".2f")
    built = replace(built, state=replace(built.state, writer=writer))
    assert len(wrong_numbers(built, root / "results")) == 1


def test_a_result_that_changes_changes_the_report(tree):
    path = tree / "results" / experiment_runs("best", "vit", PRESET)[0].file_name
    result = json.loads(path.read_text())
    write_json(result | {"test_accuracy": 12.345}, path)
    other = json.loads((path.parent / path.name.replace("-s0", "-s1")).read_text())
    mean = f"{(12.345 + other['test_accuracy']) / 2:.2f} ±"
    assert mean not in (tree / "report.md").read_text()
    changed = report.run(tree, (PRESET,))
    assert {"report.md", "README.md", "report_vit_loss.png"} <= set(changed)
    assert mean in (tree / "report.md").read_text() and mean in (tree / "README.md").read_text()


def test_written_once_nothing_changes(drawn):
    root, changed, _ = drawn
    assert {"report.md", "README.md"} <= set(changed)
    assert report.run(root, (PRESET,), check=True) == []
    assert report.run(root, (PRESET,)) == []
    assert README.partition(report.BEGIN)[0] in (root / "README.md").read_text()
    assert (root / "README.md").read_text().endswith("The end.\n")
    assert not list(root.rglob("*.tmp"))


def test_check_names_what_would_change_and_writes_nothing(tree):
    report_file, figures = tree / "report.md", tree / "figures"
    report_file.write_text(report_file.read_text() + "a word\n")
    (figures / "report_lambda.png").unlink()
    with Image.open(figures / "report_hyper.png") as image:
        image.save(figures / "report_hyper.png")  # the same picture, but of what?
    (figures / "report_of_old.png").write_bytes(b"")
    weights = weights_path(experiment_runs("best", "vit", PRESET)[0], tree / "results")
    save_weights(VisionTransformer(experiment_runs("best", "vit", PRESET)[0].model), weights)
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    changed = report.run(tree, (PRESET,), check=True)
    assert {
        "report.md",
        "report_lambda.png",
        "report_hyper.png",
        "report_of_old.png",
        "models/smoke-vit-best.json",
    } <= set(changed)
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before
    assert report.main(["--check", "--root", str(tree), "--presets", PRESET]) == 1


def test_figures_are_few_small_and_know_what_they_show(drawn):
    root, _, built = drawn
    files = sorted((root / "figures").glob("*.png"))
    assert {f.name for f in files} == built.state.used and 15 <= len(files) <= 20
    for f in files:
        assert f.stat().st_size < 300_000 and len(drawn_from(f)) == 64
        with Image.open(f) as image:
            assert image.format == "PNG" and "Software" not in image.info
    for name in re.findall(r"\]\(figures/([^)]+)\)", built.report):
        assert name in {f.name for f in files}


def test_a_report_stands_missing_results(tree):
    for run in all_runs(PRESET):
        if "hyper" not in run.section and run.name in ("vit-patch-2", "diff-patch-8", "vit-flip"):
            (tree / "results" / run.file_name).unlink(missing_ok=True)
    report.run(tree, (PRESET,))
    text = (tree / "report.md").read_text()
    planned = len(experiment_runs("patch", "vit", PRESET))
    assert f"{planned - 1} of {planned} runs are done" in text
    built = report.build(tree, (PRESET,), draw=False)
    assert wrong_numbers(built, tree / "results") == [] and typed_digits(built.report) == []


def test_a_report_of_nothing_says_so(tmp_path):
    (tmp_path / "README.md").write_text(README)
    (tmp_path / "results").mkdir()
    report.run(tmp_path, (PRESET,))
    text = (tmp_path / "report.md").read_text()
    assert f"0 of the {len(all_runs(PRESET))} training runs" in text
    assert "None of the 3 runs of the ViT is done yet" in text and "Not measured yet" in text
    built = report.build(tmp_path, (PRESET,), draw=False)
    assert wrong_numbers(built, tmp_path / "results") == [] and typed_digits(built.report) == []


@pytest.mark.parametrize(
    "readme",
    ["nothing", report.BEGIN, report.END + report.BEGIN, report.BEGIN + report.END + report.END],
)
def test_a_readme_without_the_two_markers_is_refused(readme):
    with pytest.raises(ValueError, match="results:begin"):
        report.in_readme(readme, "a table")


# ------------------------------------------------------------------ declaration and appendix


@pytest.mark.parametrize(
    "line, prompts",
    [
        ("# LLM-assisted: prompts P1, see report.md", ["P1"]),
        ("# LLM-assisted: prompts P1, P2, P5, see report.md", ["P1", "P2", "P5"]),
        ("# LLM-assisted: prompts P1 and P3, see report.md", ["P1", "P3"]),
        ("# made by hand", []),
    ],
)
def test_prompts_are_read_from_the_first_lines(line, prompts, tmp_path):
    file = tmp_path / "a.py"
    file.write_text(f"{line}\n" + "x = 1\n" * 20 + "# LLM-assisted: prompts P6\n")
    assert report_frame.prompts_of(file) == prompts
    cells = [{"source": ["# Title\n", line]}, {"source": ["prompts P6"]}]
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(json.dumps({"cells": cells}))
    assert report_frame.prompts_of(notebook) == prompts


def test_every_file_declares_its_prompts():
    found = {f for files in report_frame.declared_files().values() for f in files}
    missing = [
        p.relative_to(ROOT).as_posix()
        for folder in ("cvassign", "dino", "tests", "notebooks")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".py", ".ipynb")
        and ".ipynb_checkpoints" not in p.parts
        and p.relative_to(ROOT).as_posix() not in found
    ]
    assert missing == []
    assert {"Makefile", "README.md", ".ci/run"} <= found


def test_each_question_has_a_heading_and_code(drawn):
    own = report_frame.headings(plain(drawn[2].report))
    asked = {
        "1.1",
        "1.2.1",
        "1.2.2",
        "1.2.3",
        "1.3",
        "1.4.1",
        "1.4.2",
        "1.4.3",
        "1.4.4",
        "2.1.1",
        "2.1.2",
        "2.1.3",
        "2.2.1",
        "2.2.2",
        "2.2.3",
        "2.3",
        "3.1.1",
        "3.1.2",
        "3.1.3",
        "3.1.4",
        "3.1.5",
    }
    assert {q[0] for q in report_frame.QUESTIONS} == asked
    for section, words, file, name in report_frame.QUESTIONS:
        heading = report_frame.heading_of(section, own)
        assert heading and section in heading, (section, words)
        assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), (file, name)
        notebook = report_frame.NOTEBOOKS[section[0]]
        if (ROOT / "notebooks" / f"{notebook}.ipynb").exists():
            there = report_frame.notebook_headings(ROOT, notebook)
            assert report_frame.heading_of(section, there), (section, notebook)


def test_a_heading_is_found_by_its_number_as_a_word():
    among = ["1 A", "1.2 B", "1.2.1 C, and 1.2.3 D", "1.20 E", "Beside 1.3: F"]
    assert report_frame.heading_of("1.2.1", among) == "1.2.1 C, and 1.2.3 D"
    assert report_frame.heading_of("1.2.3", among) == "1.2.1 C, and 1.2.3 D"
    assert report_frame.heading_of("1.2.2", among) == "1.2 B"  # the one above it
    assert report_frame.heading_of("1.3", among) == "Beside 1.3: F"
    assert report_frame.heading_of("2.1", among) is None


# ------------------------------------------------------------------------------- small parts


def test_numbers_print_as_a_reader_expects():
    assert report_numbers.printed(-0.004, ".2f") == "0.00"
    assert report_numbers.printed(-1.25, "+.1f") == "−1.2"
    assert report_numbers.printed(1234567, ",d") == "1,234,567"
    assert report_numbers.printed(2.5e-4, ".1e") == "2.5e−04"
    assert report_numbers.printed("a 3", ".2f") == "a 3"


def test_what_the_corruptions_say_follows_their_intervals():
    def d(low: float, high: float) -> dict:
        return {"mean": (low + high) / 2, "low": low, "high": high}

    found = {"Gaussian noise": d(1, 2), "shot noise": d(-1, 1), "fog": d(-3, -2)}
    kinds = list(found)
    found |= {"clean": d(-4, -3), "lost to noise": d(-2, -1)}
    said = cancelling(found, kinds)
    assert "above the ViT in: Gaussian noise; clearly below it in: fog." in said
    assert "fewer points" in said and "starts lower" in said
    none = found | {"Gaussian noise": d(-1, 2), "clean": d(-1, 1), "lost to noise": d(1, 2)}
    assert "more points" in cancelling(none, kinds) and "starts" not in cancelling(none, kinds)
    assert "does not show" in cancelling(none | {"lost to noise": d(-1, 1)}, kinds)
    assert cancelling({}, []) == ""


def test_positions_side_by_side_are_told_from_others():
    g = 4
    places = torch.stack([torch.arange(g * g) // g, torch.arange(g * g) % g], 1).float()
    # Smooth in both directions: cosines and sines of a quarter turn over the image.
    positions = torch.cat([f(places / g * math.pi / 2) for f in (torch.cos, torch.sin)], 1)
    found = report_models.position_cosines(positions, g)
    unit = positions / positions.norm(dim=1, keepdim=True)
    near = [
        float(unit[i] @ unit[j])
        for i in range(g * g)
        for j in range(g * g)
        if (places[i] - places[j]).abs().sum() == 1
    ]
    assert found["neighbours"] == pytest.approx(statistics.fmean(near), abs=1e-5)
    assert found["neighbours"] > found["others"] + 0.05


def test_a_figure_is_drawn_again_only_for_other_data(drawn):
    root, _, built = drawn
    path = root / "figures" / "report_vit_loss.png"
    r = replace(built.state, draw=True, changed=[], used=set())
    made = []

    def make():
        made.append(1)
        return Figure(figsize=(1, 1))

    r.figure("again", "a title", [1, 2], make)
    r.figure("again", "a title", [1, 2], make)
    assert len(made) == 1
    r.figure("again", "a title", [1, 3], make)
    assert len(made) == 2
    with Image.open(root / "figures" / "report_again.png") as image:
        assert image.info[DREW] != drawn_from(path)
    (root / "figures" / "report_again.png").unlink()


def test_things_in_a_row_read_as_a_sentence():
    said = [report_frame.in_a_row(list(words)) for words in ("", "a", "ab", "abc")]
    assert said == ["", "a", "a and b", "a, b and c"]
