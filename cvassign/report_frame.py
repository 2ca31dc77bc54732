# LLM-assisted: prompts P6, see report.md
"""What stands around the three parts of the report: abstract, protocol, speed, what did not work,
limits, declaration of the LLM's part, references, and where each sub-question is answered.
"""

import json
import re
from pathlib import Path

from cvassign.experiments import MODELS, PRESETS, SECTIONS, experiment_runs, stored
from cvassign.report_clip import TWIN
from cvassign.report_models import NAMES
from cvassign.report_numbers import Number, constant, count, table, total
from cvassign.report_results import Report, of_groups
from cvassign.report_sections import CELL, by_validation, first_above, join, labelled, points
from cvassign.results import ROOT

EXPERIMENTS = {
    "reference": "reference recipe",
    "best": "best recipe",
    "length": "length of training",
    "patch": "patch size",
    "hyper": "hyperparameters",
    "augment": "augmentation",
    "position": "positions",
    "controls": "controls",
}


def runs_done(r: Report, preset: str) -> tuple[Number, Number]:
    """How many of a preset's runs have a result; each run counts once."""
    files = sorted(
        {run.file_name for e in SECTIONS for m in MODELS for run in experiment_runs(e, m, preset)}
    )
    return count([f for f in files if r.files.has(f)]), Number(len(files), ("all planned", preset))


def main_preset(r: Report) -> str:
    """The preset that most tables show."""
    return stored("best", "vit", r.presets, r.results)[0]


def abstract(r: Report) -> str:
    preset = main_preset(r)
    have, planned = runs_done(r, preset)
    size = r.put(constant("cvassign.vit", "ViTConfig.image_size"))
    said = [
        "A Vision Transformer and a Differential Vision Transformer, written from scratch and "
        f"trained on CIFAR-10 at its own {size} × {size} pixels, compared over patch sizes, "
        "hyperparameters, augmentations and positional embeddings; and ResNet-50 trained on "
        f"ImageNet beside CLIP's. {r.put(have)} of the {r.put(planned)} training runs of the "
        f"preset `{preset}` are done."
    ]
    if pairs := r.pairs("best"):
        a, b = pairs[0]
        said.append(
            f"With its best recipe ({r.put(a.one('n_params'), ',d')} parameters, "
            f"{r.put(a.one('epochs'))} epochs) the ViT reaches {r.percent(a)} % test accuracy, the "
            f"Diff-ViT ({r.put(b.one('n_params'), ',d')} parameters) {r.percent(b)} %. "
            + points(r, of_groups(a, b), "the ViT", "The Diff-ViT")
            + (
                " With one seed that interval covers other test images, not another training."
                if len(a.results) == 1
                else ""
            )
        )
        said.append(first_above(r, a).replace("Its", "The ViT's", 1))
    if r.files.has(BENCH["cpu"]):
        ours = r.files.get(BENCH["cpu"], "training", "ours_to_usual", "median")
        said.append(
            f"On a CPU our training is {r.put(ours, '.1f')} times as fast as the usual loop."
        )
    if r.files.has(TWIN):
        main = next(iter(r.files.read(TWIN)["variants"]))
        rates = [
            r.files.get(TWIN, *at).times(100)
            for at in (
                ("classifier", "top5", "rendition"),
                ("variants", main, "top5_rendition", "mean"),
            )
        ]
        said.append(
            "On renditions of ImageNet's classes the classifier has the right class in its top "
            f"five for {r.put(rates[0], '.1f')} %, a text-aligned head on the same trunk for "
            f"{r.put(rates[1], '.1f')} %."
        )
    said.append(
        "OpenAI's CLIP weights could not be had where this was made; what needs them says so."
    )
    return join("## Abstract", " ".join(said))


def headline(r: Report) -> str:
    """The results table of README.md."""
    rows, seen = [], set()
    for experiment, words in (("best", "best recipe"), ("length", "best recipe, shorter"),
                              ("reference", "reference recipe")):  # fmt: skip
        for model in MODELS:
            for g in r.groups(experiment, model)[:1]:
                if g.paths[0] in seen:  # a preset without a shorter training has the best recipe there
                    continue
                seen.add(g.paths[0])
                rows.append(
                    (
                        f"{NAMES[model]}, {words}",
                        f"`{r.put(g.one('preset'))}`",
                        r.put(g.one("epochs")),
                        r.put(g.one("n_params"), ",d"),
                        r.put(count(g.paths)),
                        r.percent(g, "val_accuracy"),
                        r.percent(g),
                    )
                )
    have, planned = runs_done(r, main_preset(r))
    note = (
        f"CIFAR-10; percent, mean ± std over the seeds. {r.put(have)} of {r.put(planned)} runs of "
        f"the preset `{main_preset(r)}` are done; all tables: `report.md`."
    )
    if not rows:
        return note
    return join(
        table(("model", "preset", "epochs", "parameters", "seeds", "validation", "test"), rows),
        note,
    )


def protocol(r: Report) -> str:
    per_class = constant("cvassign.data", "VAL_PER_CLASS")
    classes = constant("cvassign.vit", "ViTConfig.num_classes")
    val = Number(per_class.value * classes.value, ("product", per_class.origin, classes.origin))
    images, test = (
        Number(
            constant("cvassign.assets", f"CIFAR10_SHAPES.x_{s}").value[0],
            ("first", ("code", "cvassign.assets", f"CIFAR10_SHAPES.x_{s}")),
        )
        for s in ("train", "test")
    )
    train = images - val
    preset = main_preset(r)

    recipe = experiment_runs("reference", "vit", preset)[0]

    def of(key: str, part: str = "train") -> str:
        return r.put(
            Number(getattr(getattr(recipe, part), key), ("recipe", preset, part, key)), "g"
        )

    rows = []
    for e, words in EXPERIMENTS.items():
        cells = []
        for m in MODELS:
            have, planned = r.done(e, m, preset)
            cells.append(f"{r.put(have)} of {r.put(planned)}" if planned.value else CELL)
        rows.append((words, *cells))
    all_done = [g for e in EXPERIMENTS for m in MODELS for g in r.groups(e, m)]
    devices = {d.value: d for g in all_done for d in g.all("device")}.values()
    hours = ""
    if all_done:
        seconds = {p: s for g in all_done for p, s in zip(g.paths, g.all("train_seconds"))}
        hours = (
            f" Together they took {r.put(total(list(seconds.values())).times(1 / 3600), '.1f')} "
            "hours of training; several ran side by side, so a single run's minutes are an upper "
            "bound."
        )
    return join(
        "## Protocol",
        f"**Data.** {r.put(train, ',d')} training, {r.put(val, ',d')} validation "
        f"({r.put(per_class)} of each class, one fixed split) and {r.put(test, ',d')} test images. "
        "The checksum of the pixels is verified.",
        "**Selection.** Everything is chosen on the validation split. The test set is read once a "
        "run, after the last epoch; no best epoch is taken.",
        "**Seeds.** A seed fixes initial weights, order and augmentation, the same for both "
        "models. Where a preset has several, numbers are mean ± sample standard deviation; a table "
        "of one seed says so.",
        f"**Recipe** (preset `{preset}`, reference): embedding {of('embed_dim', 'model')}, "
        f"{of('depth', 'model')} layers, {of('num_heads', 'model')} heads; {of('optimizer')}, peak "
        f"learning rate {of('learning_rate')}, batch {of('batch_size')}, {of('epochs')} epochs, "
        f"warm-up then cosine, clipped gradients, augmentation `{of('augment')}`"
        + (
            f"; in the first {of('keep_epochs')} epochs only a share of {of('keep')} of the "
            "patches is seen (PatchDropout), which makes them cheaper"
            if recipe.train.keep_epochs
            else ""
        )
        + ". "
        "The ViT and the Diff-ViT go through one list of runs, one trainer and one recipe. The "
        "presets `full` (for a GPU) and `cpu` have the same experiments at different sizes; "
        "complete results of `full` take the place of those of `cpu`.",
        table(("runs done", *(NAMES[m] for m in MODELS)), rows),
        ("**Devices.** " + "; ".join(r.put(d) for d in devices) + "." + hours) if devices else "",
    )


# ------------------------------------------------------------------------------------- speed

BENCH = {"cpu": "bench/cpu.json", "cuda": "bench/cuda.json"}


def speed(r: Report) -> str:
    parts = [_speed_of(r, device) for device in BENCH if r.files.has(BENCH[device])]
    text = join(
        "## Speed",
        "`python -m cvassign.bench` has the competitors take turns, and takes medians of the "
        "rounds' ratios. *Usual loop*: torchvision's CIFAR-10 and transforms, a DataLoader, timm's "
        "model of the same shape, fp32, AdamW, in a process of its own with PyTorch's own settings; "
        "*threads waiting as ours*: with the one setting that the package changes, how long a thread "
        "spins for work before it sleeps.",
    )
    if not parts:
        return join(text, "*Not measured yet.*")
    said = [
        f"*{r.label(g)}*: {first_above(r, g).replace('Its', 'its', 1)}" for g in r.groups("length")
    ]
    return join(text, *parts, " ".join(["**Time to the asked accuracy.**", *said]) if said else "")


def _speed_of(r: Report, device: str) -> str:
    file = BENCH[device]

    def get(*keys) -> Number:
        return r.files.get(file, *keys)

    def spread(*keys, form: str = ".2f") -> str:
        return (
            f"{r.put(get(*keys, 'median'), form)} ({r.put(get(*keys, 'min'), form)} to "
            f"{r.put(get(*keys, 'max'), form)})"
        )

    training = [
        (
            r.put(Number(name, ("key", file, "training", "images_per_second", name))),
            spread("training", "images_per_second", name, form=",.0f"),
        )
        for name in get("training", "images_per_second").value
    ]
    growth = [
        (
            name,
            r.put(get("growth", "rows", name, "tokens")),
            r.put(get("growth", "rows", name, "flop_per_image").times(1e-9), ".3f"),
            spread("growth", "rows", name, "ms_per_image", form=".2f"),
        )
        for name in get("growth", "rows").value
    ]
    growth = [
        (r.put(Number(row[0], ("key", file, "growth", "rows", row[0]))), *row[1:]) for row in growth
    ]
    kernels = [
        (
            r.put(Number(n, ("key", file, "attention", "tokens", n))),
            spread("attention", "tokens", n, "sdpa_to_formula", "forward"),
            spread("attention", "tokens", n, "sdpa_to_formula", "backward"),
        )
        for n in get("attention", "tokens").value
    ]
    shares = " and ".join(
        f"{r.put(get('share_of_peak', d).times(100), '.0f')} % of the {words} peak"
        for d, words in (("float32", "single-precision"), ("bfloat16", "bfloat16"))
    )
    recipe = ""
    if "recipe_to_usual" in get("training").value:
        recipe = (
            " The recipe of the preset leaves patches out, "
            f"{r.put(get('training', 'keep').times(100), '.0f')} % of them stay in "
            f"{r.put(get('training', 'keep_epochs'))} of its "
            f"{r.put(get('training', 'epochs'))} epochs: so run, a pass over the data is "
            f"{spread('training', 'recipe_to_usual')} times as fast, by fewer operations."
        )
    slow = (
        " (Our loop alone slows timm's model, most likely as its fused attention has a slow backward "
        "pass in bf16, see below.)"
        if get("training", "loop_alone", "median").value < 1
        else ""
    )
    return join(
        f"**On {r.put(get('device'))}**, {r.put(get('threads'))} threads, torch "
        f"{r.put(get('versions', 'torch'))}; shape of the preset `{r.put(get('preset'))}`, batch "
        f"{r.put(get('batch_size'))}. Medians, in brackets the smallest and the largest round.",
        table(("training", "images a second"), training),
        f"*{r.put(get('training', 'ours'))}* is {spread('training', 'ours_to_usual')} times as fast as "
        f"the usual loop: how threads wait gives a factor of {spread('training', 'waiting_alone')}, "
        f"the loop {spread('training', 'loop_alone')}, the model {spread('training', 'model_alone')}"
        f"{', compiling the rest' * ('compiled' in get('training', 'ours').value)}.{slow}{recipe} "
        f"Whole images run at {shares} of a square matrix product, measured in the same run. A step "
        f"of the Diff-ViT takes {spread('models', 'diff_to_vit')} times as long as the ViT's.",
        table(("shape", "tokens", "GFLOP an image", "ms an image"), growth),
        "PyTorch's fused attention (SDPA) against the formula, time of the one over the other:",
        table(("tokens", "forward", "backward"), kernels),
        f"Looking costs, an image: a prediction {spread('looking', 'prediction', form='.3f')} ms, "
        f"CLS maps {spread('looking', 'CLS maps', form='.3f')} ms, rollout "
        f"{spread('looking', 'rollout', form='.3f')} ms.",
    )


# ------------------------------------------------------------------- what did not work, limits


def did_not_work(r: Report) -> str:
    said = [
        "torchvision's RandAugment and TrivialAugment draw one operation for a whole tensor; a "
        "loop over images was too slow, so augmentation was written for batches.",
        "The one library with all seven corruptions fails on today's NumPy and scikit-image and "
        "has the strengths of ImageNet; four are torchvision's, three are written here.",
        "Meta's DINO weights and OpenAI's CLIP weights are in no package registry. The first were "
        "replaced by named others, the second are missing.",
    ]
    if r.files.has(BENCH["cpu"]):
        tokens = r.files.read(BENCH["cpu"])["attention"]["tokens"]
        at = {
            n: r.files.get(
                BENCH["cpu"], "attention", "tokens", n, "sdpa_to_formula", "backward", "median"
            )
            for n in tokens
        }
        worst = max(at, key=lambda n: at[n].value)
        if at[worst].value > 1:
            said.append(
                "PyTorch's fused attention, faster elsewhere, takes up to "
                f"{r.put(at[worst], '.1f')} times as long backward on the CPU: training there "
                "takes the formula."
            )
    groups = r.groups("hyper")
    reference = labelled(groups, "reference")
    if reference and len(groups) > 1:
        worse = [
            g
            for g in by_validation(groups)[::-1]
            if g.mean("val_accuracy").value < reference.mean("val_accuracy").value
        ]
        said += [
            f"{r.label(g)}: "
            f"{r.put(reference.mean('val_accuracy') - g.mean('val_accuracy'), '.2f')} points of "
            "validation accuracy below the reference."
            for g in worse[:3]
        ]
    if pairs := r.pairs("best"):
        d = of_groups(*pairs[0])
        if not (d.clear and d.mean.value > 0):
            said.append(
                "With the best recipe differential attention does not beat the ViT clearly."
            )
    return join("## What did not work", "\n".join(f"- {s}" for s in said))


def in_a_row(words: list[str]) -> str:
    """One, two or more things as a sentence names them: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def limits(r: Report) -> str:
    preset = main_preset(r)
    said = []
    if preset != "full":
        said.append(
            f"The tables are of the preset `{preset}`: small models and few epochs, sized for two "
            "CPU cores. Comparisons hold for that; a longer training may order them otherwise, "
            "most of all augmentations and model sizes. `python -m cvassign.experiments run "
            "--preset full` makes the full ones on a GPU."
        )
    several = []  # experiments with several seeds, or those of their configurations that have them
    for experiment, words in EXPERIMENTS.items():
        groups = r.groups(experiment, "vit", preset)
        mine = [g for g in groups if len(g.results) > 1]
        several += [words] if mine and len(mine) == len(groups) else [f"*{r.label(g)}*" for g in mine]
    if len(several) < len(EXPERIMENTS):
        alone = f" for all but {in_a_row(several)}" if several else ""
        said.append(
            f"One seed a configuration{alone}: the intervals are over test images only, and a "
            "difference of a point may come from the seed."
        )
    said += [
        "A hyperparameter is changed alone; what two together would do is not known.",
        "Of many intervals some leave zero out by chance; no correction is made.",
        "Attention maps show where weights are large, not why the model answers as it does; the "
        "deletion and insertion scores are the only test of that here.",
    ]
    if "cuda" not in [d for d in BENCH if r.files.has(BENCH[d])]:
        said.append("Speed was measured on a CPU only.")
    return join("## Limits", "\n".join(f"- {s}" for s in said))


# ------------------------------------------------------------------------------- declaration

PROMPTS = {
    "P1": "Build the package and the first notebook: a ViT from scratch on CIFAR-10, each piece "
    "tested against a library; the data, augmentations per image, one trainer, every run "
    "and result as data; patch sizes, hyperparameters, augmentations and positional "
    "embeddings with honest selection; attention maps, rollout and the similarity of "
    "positions.",
    "P2": "Build the Differential ViT and the second notebook: only the attention differs; repeat "
    "every experiment, add the controls, compare at equal parameters with intervals, and "
    "test robustness and rollout with signed weights.",
    "P3": "Write DINO's attention script, the downloads with their checksums, ImageNet's "
    "ResNet-50 and labels, CLIP RN50 as a zero-shot classifier, the comparison by rule on "
    "openly licensed pictures, half precision measured, and the third notebook.",
    "P4": "Train a text-aligned head on the frozen ImageNet trunk, as the controlled experiment "
    "beside CLIP, with held-out sources, seeds and a data card.",
    "P5": "Run the full campaign: a recipe search on the validation split with the same effort "
    "for both models, then every experiment, with several seeds where it counts.",
    "P6": "Write the report from the result files with no number typed by hand, prove speed side "
    "by side and robustness by tests, and make a fresh machine run it all.",
}
PRODUCED = {
    "P1": "the core of the package, its tests and the first notebook, whole.",
    "P2": "differential attention, its experiments, the comparison and the second notebook, whole.",
    "P3": "the downloads, the folder of DINO's script and its maps, ImageNet, CLIP, half "
    "precision and the third notebook, whole.",
    "P4": "the twin, its study, and its columns in the third notebook.",
    "P5": "the trainer's optimizers and presets, and the runs that are stored; the recipe search "
    "and the preset for a GPU are written, and were not run where no GPU could be had.",
    "P6": "this report with its generator, the measurements of speed and robustness, and what "
    "sets a fresh machine up.",
}
DECLARED = re.compile(r"prompts?\s+((?:P[1-6](?:,? and |, | ?, ?)?)+)")


def prompts_of(path: Path) -> list[str]:
    """The prompts that a file declares in its first lines (a notebook in its first cell).

    Returns:
        For example ["P1", "P2"]; empty if it declares none.
    """
    text = path.read_text()
    if path.suffix == ".ipynb":
        text = "".join(json.loads(text)["cells"][0]["source"])
    found = DECLARED.search("\n".join(text.splitlines()[:6]))
    return re.findall(r"P[1-6]", found[1]) if found else []


def declared_files(root: Path = ROOT) -> dict[str, list[str]]:
    """{prompt: the files that declare it}, by reading them."""
    files = [root / name for name in ("Makefile", "README.md", "requirements.txt", ".ci/run")]
    for folder in ("cvassign", "dino", "notebooks", "tests"):
        files += [
            p
            for p in sorted((root / folder).rglob("*"))
            if p.suffix in (".py", ".ipynb", ".md") and ".ipynb_checkpoints" not in p.parts
        ]
    found: dict[str, list[str]] = {p: [] for p in PROMPTS}
    for file in files:
        for prompt in prompts_of(file) if file.exists() else ():
            found[prompt].append(file.relative_to(root).as_posix())
    return found


def declaration(r: Report, root: Path) -> str:
    rows = [
        f"**{p}**: {text}\n\nProduced: {PRODUCED[p]}\n\n"
        + (
            "Files: " + ", ".join(f"`{f}`" for f in files) + "."
            if (files := declared_files(root)[p])
            else "No file yet."
        )
        for p, text in PROMPTS.items()
    ]
    return join(
        "## LLM declaration",
        "All code and text of this submission was generated with the help of an LLM service, from "
        "the prompts below. Each was a task statement of about a page that named the assignment's "
        "text as the rule, given here in a sentence or two; the LLM planned, wrote, tested and ran "
        "the work of it. Each file says in its first lines which prompts it comes from, and the "
        "first code cell of each notebook repeats them; the lists are read from there.",
        *rows,
    )


REFERENCES = """
- Dosovitskiy et al., "An Image is Worth 16x16 Words", arXiv 2010.11929 (ViT)
- Vaswani et al., "Attention Is All You Need", arXiv 1706.03762
- Ye et al., "Differential Transformer", arXiv 2410.05258
- Abnar and Zuidema, "Quantifying Attention Flow in Transformers", arXiv 2005.00928 (rollout)
- Petsiuk et al., "RISE", arXiv 1806.07421 (deletion and insertion)
- Caron et al., "Emerging Properties in Self-Supervised ViTs" (DINO), arXiv 2104.14294
- Oquab et al., "DINOv2", arXiv 2304.07193
- Radford et al., "Learning Transferable Visual Models" (CLIP), arXiv 2103.00020
- Zhai et al., "LiT: Zero-Shot Transfer with Locked-image text Tuning", arXiv 2111.07991
- He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385
- Russakovsky et al., "ImageNet Large Scale Visual Recognition Challenge", arXiv 1409.0575
- Geirhos et al., "ImageNet-trained CNNs are biased towards texture", arXiv 1811.12231
- Hendrycks and Dietterich, "Benchmarking Neural Network Robustness", arXiv 1903.12261 (CIFAR-10-C)
- Touvron et al., "Training data-efficient image transformers", arXiv 2012.12877 (the recipe)
- Lee et al., "Vision Transformer for Small-Size Datasets", arXiv 2112.13492 (preset `full`)
- Liu et al., "PatchDropout", arXiv 2208.07220
- Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382
- Cubuk et al., "RandAugment", arXiv 1909.13719
- Müller and Hutter, "TrivialAugment", arXiv 2103.10158
- Zhang et al., "mixup", arXiv 1710.09412; Yun et al., "CutMix", arXiv 1905.04899
- Zhong et al., "Random Erasing Data Augmentation", arXiv 1708.04896
- Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
- Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009 (CIFAR-10)
- Fellbaum (editor), "WordNet: An Electronic Lexical Database", 1998
""".strip()


def references(r: Report) -> str:
    return join("## References", REFERENCES)


# ---------------------------------------------------------------------------------- appendix

# Section of the assignment, what it asks, where the code is (file and name in it).
QUESTIONS = (
    ("1.1", "scaled dot-product attention", "cvassign/attention.py",
     "scaled_dot_product_attention"),
    ("1.1", "multi-headed attention", "cvassign/attention.py", "MultiHeadAttention"),
    ("1.1", "transformer encoder layer", "cvassign/vit.py", "EncoderLayer"),
    ("1.1", "[CLS] token", "cvassign/vit.py", "cls_token"),
    ("1.1", "learnable positional embedding", "cvassign/positional.py", "Learned1D"),
    ("1.1", "training on CIFAR-10, loss curves, test accuracy", "cvassign/train.py", "Trainer"),
    ("1.2.1", "patch sizes 2, 4, 8: loss curves and accuracies", "cvassign/experiments.py",
     "patch"),
    ("1.2.2", "hyperparameters: dimension, layers, MLP, heads", "cvassign/experiments.py",
     "_hyperparameters"),
    ("1.2.2", "best configuration, more than 80 % within 50 epochs", "cvassign/experiments.py",
     "best"),
    ("1.2.2", "discussion of the findings", "cvassign/plots.py", "parallel_coordinates"),
    ("1.2.3", "augmentations and combinations, best accuracy", "cvassign/augment.py",
     "Augmentation"),
    ("1.3", "no positional embedding", "cvassign/positional.py", "NoPosition"),
    ("1.3", "1-D learned", "cvassign/positional.py", "Learned1D"),
    ("1.3", "2-D learned (appendix D.4, point 3)", "cvassign/positional.py", "Learned2D"),
    ("1.3", "sinusoidal", "cvassign/positional.py", "Sinusoidal"),
    ("1.3", "loss curves and accuracies compared", "cvassign/plots.py", "loss_curves"),
    ("1.4.1", "DINO's maps of two pictures", "dino/visualize_attention.py", "AttentionMaps"),
    ("1.4.2", "[CLS] to patches, each head of the last layer, and their mean",
     "cvassign/rollout.py",
     "cls_attention"),
    ("1.4.2", "[CLS] to patches in all layers", "cvassign/attention_plots.py", "layer_maps"),
    ("1.4.3", "attention rollout", "cvassign/rollout.py", "attention_rollout"),
    ("1.4.4", "similarity of the learned positions", "cvassign/attention_plots.py",
     "position_similarity"),
    ("2.1.1", "differential attention, multi-headed", "cvassign/attention.py",
     "MultiHeadDiffAttention"),
    ("2.1.2", "in the ViT, all else retained", "cvassign/vit.py", "make_attention"),
    ("2.1.3", "trained with patch 2 and 4, loss curves", "cvassign/experiments.py", "patch"),
    ("2.1.3", "test accuracy beside the ViT's", "cvassign/compare.py", "rows"),
    ("2.2.1", "hyperparameters repeated", "cvassign/experiments.py", "hyper"),
    ("2.2.2", "data augmentation repeated", "cvassign/experiments.py", "augment"),
    ("2.2.3", "positional embeddings repeated", "cvassign/experiments.py", "position"),
    ("2.3", "[CLS] to patches with the Diff-ViT", "cvassign/attention_plots.py", "head_maps"),
    ("2.3", "rollout with the Diff-ViT", "cvassign/rollout.py", "attention_rollout"),
    ("3.1.1", "RN50 by ImageNet and by CLIP", "cvassign/imagenet.py", "load_resnet50"),
    ("3.1.1", "same architecture? differences", "cvassign/clip.py", "parts"),
    ("3.1.2", "label hierarchy", "cvassign/imagenet.py", "paths"),
    ("3.1.2", "what a synset means", "cvassign/imagenet.py", "Synset"),
    ("3.1.2", "problems of grouping by synset", "cvassign/imagenet.py", "lowest_common_hypernym"),
    ("3.1.2", "3 types of visual differences", "cvassign/gallery.py", "Picture"),
    ("3.1.3", "zero-shot probabilities over the labels, examples", "cvassign/clip.py", "ZeroShot"),
    ("3.1.4", "10 classes, 2 images for CLIP, 1 for ImageNet, reasons, sources",
     "cvassign/gallery.py",
     "select"),
    ("3.1.5", "fp16: wall-clock time, mean and std of 100 runs", "cvassign/precision.py",
     "time_forward"),
    ("3.1.5", "probabilities of 5 images in fp16", "cvassign/precision.py", "compare"),
    ("3.1.5", "memory of a forward pass, by a profiler", "cvassign/precision.py", "timeline"),
)  # fmt: skip
NOTEBOOKS = {"1": "1_vit", "2": "2_diff_vit", "3": "3_clip"}


def headings(text: str) -> list[str]:
    """The headings of a Markdown text."""
    return [line.lstrip("#").strip() for line in text.splitlines() if re.match(r"#{1,4} ", line)]


def notebook_headings(root: Path, name: str) -> list[str]:
    """The headings of a notebook; none if it is not there."""
    path = root / "notebooks" / f"{name}.ipynb"
    if not path.exists():
        return []
    cells = json.loads(path.read_text())["cells"]
    return [
        h for c in cells if c["cell_type"] == "markdown" for h in headings("".join(c["source"]))
    ]


def heading_of(section: str, among: list[str]) -> str | None:
    """The first heading that has the section's number as a word, else that of the one above it."""
    while section:
        word = re.compile(rf"(?<![\d.]){re.escape(section)}(?![\d.]*\d)")
        if found := next((h for h in among if word.search(h)), None):
            return found
        section = section.rpartition(".")[0] if section.count(".") > 1 else ""
    return None


def appendix(r: Report, root: Path, report: str) -> str:
    """Each sub-question of the assignment with notebook, report and code.

    Args:
        report: the report's text before this section.
    """
    rows, own = [], headings(report)
    for section, asked, file, name in QUESTIONS:
        notebook = NOTEBOOKS[section[0]]
        there = heading_of(section, notebook_headings(root, notebook))
        rows.append(
            (
                section,
                asked,
                f"`notebooks/{notebook}.ipynb`, *{there}*" if there else CELL,
                f"*{heading_of(section, own)}*",
                f"`{file}`: `{name}`",
            )
        )
    head = ("section", "asked", "notebook, heading", "heading in this report", "code")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return join(
        "## Appendix: where each question is answered",
        "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]),
    )
