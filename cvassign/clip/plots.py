# LLM-assisted: prompts P3, P4, P9, see report.md
"""The figures of notebook 3: each function takes numbers or pictures and returns a Figure."""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from cvassign.clip import imagenet
from cvassign.figure import legend_below, styled

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"  # safe for colour blindness


def _column(ax, title: str, boxes: list[tuple[str, str]]) -> None:
    """Boxes from top to bottom with arrows: (text, colour)."""
    ax.set(xlim=(0, 1), ylim=(len(boxes), -0.2))
    ax.set_title(title, fontsize=10)
    ax.axis("off")
    for i, (text, colour) in enumerate(boxes):
        ax.text(0.5, i + 0.4, text, ha="center", va="center", fontsize=8,
                bbox={"boxstyle": "round,pad=0.4", "fc": colour, "alpha": 0.25, "ec": colour})  # fmt: skip
        if i:
            ax.annotate("", (0.5, i + 0.1), (0.5, i - 0.3), arrowprops={"arrowstyle": "->"})


@styled
def architectures() -> Figure:
    """Stem, a downsampling block and head of both ResNet-50, side by side."""
    fig, axes = plt.subplots(2, 3, figsize=(9.5, 6.6), layout="constrained")
    top, bottom = axes
    _column(top[0], "ImageNet RN50: stem", [
        ("image 3 × 224 × 224", GREY), ("conv 7 × 7, stride 2 → 64 × 112 × 112", BLUE),
        ("BatchNorm, ReLU", GREY), ("max pool 3 × 3, stride 2 → 64 × 56 × 56", ORANGE)])  # fmt: skip
    _column(bottom[0], "CLIP RN50: stem", [
        ("image 3 × 224 × 224", GREY), ("conv 3 × 3, stride 2 → 32 × 112 × 112", BLUE),
        ("conv 3 × 3 → 32 × 112 × 112", BLUE), ("conv 3 × 3 → 64 × 112 × 112", BLUE),
        ("average pool 2 × 2 → 64 × 56 × 56", GREEN)])  # fmt: skip
    _column(top[1], "ImageNet RN50: first block of stages 2–4", [
        ("conv 1 × 1", BLUE), ("conv 3 × 3, stride 2", ORANGE), ("conv 1 × 1", BLUE),
        ("+ shortcut: conv 1 × 1, stride 2", ORANGE), ("ReLU", GREY)])  # fmt: skip
    _column(bottom[1], "CLIP RN50: first block of stages 2–4", [
        ("conv 1 × 1", BLUE), ("conv 3 × 3, stride 1", BLUE), ("average pool 2 × 2", GREEN),
        ("conv 1 × 1", BLUE), ("+ shortcut: average pool 2 × 2, conv 1 × 1", GREEN)])  # fmt: skip
    _column(top[2], "ImageNet RN50: head", [
        ("2048 × 7 × 7", GREY), ("global average pool → 2048", ORANGE),
        ("linear → 1000 logits", BLUE)])  # fmt: skip
    _column(bottom[2], "CLIP RN50: head", [
        ("2048 × 7 × 7 = 49 tokens", GREY), ("mean token in front, + positions → 50 × 2048", GREEN),
        ("attention, 32 heads, query = mean token", GREEN),
        ("linear → 1024, the space shared with text", BLUE)])  # fmt: skip
    return fig


@styled
def subtree(wnids: list[str]) -> Figure:
    """The classes' shortest paths from "entity", merged into one tree, leaves in colour."""
    children: dict[str, set] = {}
    for path in (imagenet.paths(w)[0] for w in wnids):
        for a, b in zip(path, path[1:]):
            children.setdefault(a, set()).add(b)
    lines, place = [], {}

    def visit(wnid: str, depth: int) -> None:
        place[wnid] = (depth, len(lines))
        lines.append(wnid)
        for child in sorted(children.get(wnid, ())):
            visit(child, depth + 1)

    visit(imagenet.paths(wnids[0])[0][0], 0)
    fig, ax = plt.subplots(figsize=(8, 0.2 * len(lines) + 0.4), layout="constrained")
    for a, below in children.items():
        for b in below:
            (xa, ya), (xb, yb) = place[a], place[b]
            ax.plot([xa, xa, xb], [ya, yb, yb], color=GREY, lw=0.8, zorder=0)
    for w, (x, y) in place.items():
        ax.text(x, y, imagenet.synsets()[w].lemmas[0], fontsize=8, va="center",
                color=BLUE if w in wnids else "black",
                bbox={"fc": "white", "ec": "none", "pad": 1})  # fmt: skip
    ax.set(xlim=(-0.3, max(x for x, _ in place.values()) + 3), ylim=(len(lines), -1))
    ax.axis("off")
    return fig


@styled
def rates_by_style(rates: dict[str, dict[str, tuple[float, int]]]) -> Figure:
    """Top-5 hit rates: {model: {style: (rate, n)}}, a group of bars a style."""
    styles = list(next(iter(rates.values())))
    fig, ax = plt.subplots(figsize=(8, 0.26 * len(styles) * max(1, len(rates)) + 1),
                           layout="constrained")  # fmt: skip
    for i, (model, by_style) in enumerate(rates.items()):
        y = [s + 0.8 * i / len(rates) for s in range(len(styles))]
        ax.barh(y, [100 * by_style[s][0] for s in styles], 0.7 / len(rates),
                color=(BLUE, ORANGE, GREEN)[i % 3], label=model)  # fmt: skip
    n = next(iter(rates.values()))
    labels = [f"{s.replace('_', ' ')} (n = {n[s][1]})" for s in styles]
    ax.set_yticks(range(len(styles)), labels, fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="pictures with the right class in the top 5 [%]", xlim=(0, 100))
    fig.legend(fontsize=8, loc="outside upper center", ncols=len(rates))
    return fig


@styled
def answers(pictures: list, tops: dict[str, list[list[tuple[str, float]]]]) -> Figure:
    """Each picture with the top-5 bars of every model: a row a picture.

    Args:
        pictures: `gallery.Picture`s that may be shown.
        tops: {model: one [(name, probability), …] a picture}; the right class in green.
    """
    if hidden := [p.path.name for p in pictures if not p.may_be_shown]:
        raise ValueError(f"these pictures may not be in a committed figure: {hidden}")
    fig, axes = plt.subplots(len(pictures), 1 + len(tops), squeeze=False, layout="constrained",
                             figsize=(2 + 3.6 * len(tops), 1.35 * len(pictures)),
                             width_ratios=[1] + [2] * len(tops))  # fmt: skip
    names = imagenet.class_names()
    for row, p in enumerate(pictures):
        image = imagenet.open_rgb(p.path)
        image.thumbnail((128, 128))
        axes[row, 0].imshow(image)
        axes[row, 0].axis("off")
        axes[row, 0].set_title(f"{p.class_name}\n{p.style.replace('_', ' ')}", fontsize=7)
        for ax, (model, top) in zip(axes[row, 1:], tops.items()):
            right = {names[i] for i in p.accept}
            colours = [GREEN if name in right else GREY for name, _ in top[row]]
            bars = ax.barh(range(5), [probability for _, probability in top[row]], color=colours)
            ax.bar_label(bars, fmt="%.2f", fontsize=6, padding=2)
            ax.set_yticks(range(5), [name[:28] for name, _ in top[row]], fontsize=7)
            ax.set(xlim=(0, 1.1), ylim=(4.6, -0.6), xticks=(0, 0.5, 1))
            ax.tick_params(axis="x", labelsize=6, labelbottom=row == len(pictures) - 1)
            if row == 0:
                ax.set_title(model, fontsize=8)
    fig.supxlabel("probability (green: a right answer)", fontsize=7)
    return fig


@styled
def gallery_rows(rows: dict[str, list]) -> Figure:
    """A row of pictures under each name; each `gallery.Picture` with its class and style."""
    width = max(map(len, rows.values()))
    fig, axes = plt.subplots(len(rows), width, figsize=(9.5, 1.75 * len(rows)), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items()):
        for ax in line:
            ax.axis("off")
        for ax, p in zip(line, pictures):
            ax.imshow(imagenet.open_rgb(p.path))
            ax.set_title(f"{p.class_name}\n{p.style.replace('_', ' ')}", fontsize=7.5)
        line[0].text(-0.15, 0.5, name, transform=line[0].transAxes, ha="right", va="center")
    return fig


@styled
def memory(entries: dict[str, dict], title: str) -> Figure:
    """Stacked memory during one forward pass, a panel a precision, one scale.

    Args:
        entries: {precision: a `precision.memory` result with its timeline}.
    """
    fig, axes = plt.subplots(1, len(entries), figsize=(9.5, 3), sharey=True,
                             squeeze=False, layout="constrained")  # fmt: skip
    for ax, (name, m) in zip(axes[0], entries.items()):
        line, x = m["timeline"], range(len(m["timeline"]["ms"]))
        fixed = ([line[k] / 2**20] * len(x) for k in ("weights", "input"))
        moving = ([b / 2**20 for b in line[k]] for k in ("activations", "workspace"))
        ax.stackplot(x, *fixed, *moving, colors=(BLUE, GREY, ORANGE, GREEN), step="post",
                     labels=("weights", "input", "activations", "workspace"))  # fmt: skip
        ax.set(title=f"{name}: peak {m['peak'] / 2**20:.1f} MiB", xlabel="allocator event")
    axes[0, 0].set_ylabel("MiB")
    legend_below(fig)
    fig.suptitle(title)
    return fig


@styled
def layer_errors(layers: dict[str, list[dict]]) -> Figure:
    """Relative error layer by layer: {label: `precision.error_by_layer`}."""
    fig, ax = plt.subplots(figsize=(9, 3), layout="constrained")
    for label, entries in layers.items():
        ax.plot([e["layer"] for e in entries], [e["relative"] for e in entries], marker="o",
                ms=3, label=label)  # fmt: skip
    ax.set(yscale="log", ylabel="relative error to fp32")
    ax.tick_params(axis="x", rotation=90, labelsize=7)
    ax.legend(fontsize=8)
    return fig
