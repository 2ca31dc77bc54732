# LLM-assisted: prompts P3, P4, see report.md
"""The figures of notebook 3: each function takes numbers or pictures and returns a Figure."""

from textwrap import wrap

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import Tensor

from cvassign.clip import imagenet

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"  # safe for colour blindness
CORNERS = ((6, 5), (-6, 5), (6, -5), (-6, -5), (0, 11), (0, -11))  # of a name at its point


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


def architectures() -> Figure:
    """Stem, a downsampling block and head of both ResNet-50, side by side."""
    fig, axes = plt.subplots(2, 3, figsize=(11, 7.4), layout="constrained")
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
    ax.set_yticks(range(len(styles)), [f"{s.replace('_', ' ')} (n = {n[s][1]})" for s in styles], fontsize=8)
    ax.invert_yaxis()
    ax.set(xlabel="pictures with the right class in the top 5 [%]", xlim=(0, 100))
    fig.legend(fontsize=8, loc="outside upper center", ncols=len(rates))
    return fig


def answers(pictures: list, tops: dict[str, list[list[tuple[str, float]]]]) -> Figure:
    """Each picture with the top-5 bars of every model: a row a picture.

    Args:
        pictures: `gallery.Picture`s that may be shown.
        tops: {model: one [(name, probability), …] a picture}; the right class in green.
    """
    if hidden := [p.path.name for p in pictures if not p.may_be_shown]:
        raise ValueError(f"these pictures may not be in a committed figure: {hidden}")
    fig, axes = plt.subplots(len(pictures), 1 + len(tops), squeeze=False, layout="constrained",
                             figsize=(2 + 3.6 * len(tops), 1.45 * len(pictures)),
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
            ax.barh(range(5), [probability for _, probability in top[row]], color=colours)
            ax.set_yticks(range(5), [name[:28] for name, _ in top[row]], fontsize=7)
            ax.set(xlim=(0, 1), ylim=(4.6, -0.6))
            ax.tick_params(axis="x", labelsize=6)
            if row == 0:
                ax.set_title(model, fontsize=8)
    fig.supxlabel("probability (green: a right answer)", fontsize=7)
    return fig


def times(measurement: dict) -> Figure:
    """Milliseconds an image (mean and standard deviation over the runs) by precision."""
    encoders = measurement["encoders"]
    fig, axes = plt.subplots(1, len(encoders), figsize=(5 * len(encoders), 3), squeeze=False,
                             layout="constrained")  # fmt: skip
    for ax, (name, e) in zip(axes[0], encoders.items()):
        rows = [(p, m["time"]) for p, m in e["precisions"].items() if m.get("time")]
        for p, time in rows:
            ax.errorbar([t["batch_size"] for t in time], [t["image_mean_ms"] for t in time],
                        [t["image_std_ms"] for t in time], marker="o", capsize=3, label=p)  # fmt: skip
        ax.set(title=name, xscale="log", yscale="log", xlabel="batch size", ylabel="ms an image")
        ax.legend(fontsize=7)
    fig.suptitle(measurement["device"], fontsize=9)
    return fig


def memory(entries: dict[str, dict], title: str) -> Figure:
    """Stacked memory during one forward pass, a panel a precision, one scale.

    Args:
        entries: {precision: a `precision.memory` result with its timeline}.
    """
    fig, axes = plt.subplots(1, len(entries), figsize=(4 * len(entries), 3), sharey=True,
                             squeeze=False, layout="constrained")  # fmt: skip
    for ax, (name, m) in zip(axes[0], entries.items()):
        line, x = m["timeline"], range(len(m["timeline"]["ms"]))
        fixed = ([line[k] / 2**20] * len(x) for k in ("weights", "input"))
        moving = ([b / 2**20 for b in line[k]] for k in ("activations", "workspace"))
        ax.stackplot(x, *fixed, *moving, colors=(BLUE, GREY, ORANGE, GREEN), step="post",
                     labels=("weights", "input", "activations", "workspace"))  # fmt: skip
        ax.set(title=f"{name}: peak {m['peak'] / 2**20:.1f} MiB", xlabel="allocator event")
    axes[0, 0].set_ylabel("MiB")
    axes[0, 0].legend(fontsize=7, loc="lower right")
    fig.suptitle(title, fontsize=9)
    return fig


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


def templates(rates: dict[str, list[dict[str, float]]]) -> Figure:
    """Top-5 by the number of sentences a class: {templates: [{kind: rate}, one a seed]}."""
    fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
    for i, kind in enumerate(("photo", "rendition")):
        each = [[100 * r[kind] for r in runs] for runs in rates.values()]
        means = [sum(v) / len(v) for v in each]
        ax.plot(range(len(rates)), means, color=(BLUE, ORANGE)[i], label=f"{kind}s")
        for x, values in enumerate(each):
            ax.plot([x] * len(values), values, "o", ms=4, color=(BLUE, ORANGE)[i])
    ax.set_xticks(range(len(rates)), list(rates))
    ax.set(xlabel="templates a class name is put into", ylabel="top-5 hits [%]")
    ax.legend(fontsize=8)
    return fig


def reliability(measured: dict[str, dict]) -> Figure:
    """How often the first answer is right against its probability: {label: a `calibration`}."""
    fig, axes = plt.subplots(1, len(measured), figsize=(3 * len(measured), 3), sharey=True,
                             squeeze=False, layout="constrained")  # fmt: skip
    for ax, (label, c) in zip(axes[0], measured.items()):
        confidence, accuracy, n = zip(*c["bins"])
        ax.plot([0, 1], [0, 1], color=GREY, lw=1)
        ax.plot(confidence, accuracy, color=BLUE, lw=1)
        ax.scatter(confidence, accuracy, s=[4 + 120 * v / sum(n) for v in n], color=BLUE)
        ax.set_title(f"{label}\nexpected calibration error {100 * c['ece']:.1f} %", fontsize=8)
        ax.set(xlabel="probability of the first answer", xlim=(0, 1), ylim=(0, 1))
    axes[0, 0].set_ylabel("share that is right")
    return fig


def embedding_map(images: Tensor, texts: Tensor, labels: list[int], kinds: list[str],
                  names: list[str]) -> Figure:  # fmt: skip
    """Pictures and class sentences in two dimensions, by the sentences' principal axes.

    Both sides are centred by their own mean: pictures and texts lie in two separate cones (the
    modality gap, arXiv 2203.02053), and one common mean would show that gap alone.

    Args:
        images: (n, E) embeddings; `labels[i]` is the row of `texts` and of `names`.
        kinds: "photo" or "rendition", a picture each.
    """
    texts, images = texts - texts.mean(0), images - images.mean(0)
    # Fewer than three sentences span no plane: then the pictures' axes.
    axes = torch.linalg.svd(texts if len(texts) > 2 else images, full_matrices=False).Vh[:2].T
    xy, stars = (images @ axes).tolist(), (texts @ axes).tolist()
    fig, ax = plt.subplots(figsize=(8, 5.4), layout="constrained")
    colours = plt.get_cmap("tab10").colors
    for kind, marker in (("photo", "o"), ("rendition", "^")):
        mine = [i for i, k in enumerate(kinds) if k == kind]
        ax.scatter([xy[i][0] for i in mine], [xy[i][1] for i in mine], s=22, alpha=0.6,
                   marker=marker, color=[colours[labels[i] % 10] for i in mine], label=kind)  # fmt: skip
    for i, (x, y) in enumerate(stars):
        ax.scatter([x], [y], s=170, marker="*", color=colours[i % 10], edgecolor="black",
                   label="class name" if i == 0 else None)  # fmt: skip
    ax.set(xlabel="first axis of the class names", ylabel="second axis")
    ax.legend(fontsize=8)
    _name_points(ax, stars, names)
    return fig


def _name_points(ax: Axes, points: list, names: list[str]) -> None:
    """Writes each name beside its point, at the first of the CORNERS where it covers no other name
    or point and stays within the axes (at the last one, if there is none)."""
    ax.figure.canvas.draw()  # sets the layout: before it nothing knows its place
    r = 4 / 72 * ax.figure.dpi  # of a point; its own name starts 5 off
    taken = [Bbox.from_extents(x - r, y - r, x + r, y + r)
             for x, y in ax.transData.transform(points)]  # fmt: skip
    frame = ax.get_window_extent()
    for point, name in zip(points, names):
        for dx, dy in CORNERS:
            text = ax.annotate(name, point, (dx, dy), textcoords="offset points", fontsize=9,
                               ha="left" if dx > 0 else "right" if dx < 0 else "center",
                               va="bottom" if dy > 0 else "top")  # fmt: skip
            box = text.get_window_extent()
            inside = all(frame.contains(*corner) for corner in box.corners())
            if (dx, dy) == CORNERS[-1] or inside and not any(map(box.overlaps, taken)):
                taken.append(box)
                break
            text.remove()


def retrieved(queries: list[str], found: list[list]) -> Figure:
    """A row a query: the pictures nearest to it, the nearest first.

    Args:
        found: for each query the `gallery.Picture`s, which must be shown openly.
    """
    if hidden := [p.path.name for row in found for p in row if not p.may_be_shown]:
        raise ValueError(f"these pictures may not be in a committed figure: {hidden}")
    fig, axes = plt.subplots(len(queries), len(found[0]), squeeze=False, layout="constrained",
                             figsize=(1.1 * len(found[0]) + 2, 1.0 * len(queries)))  # fmt: skip
    for line, query, row in zip(axes, queries, found):
        for ax, p in zip(line, row):
            image = imagenet.open_rgb(p.path)
            image.thumbnail((72, 72))
            ax.imshow(image)
            ax.set_title(p.class_name[:18], fontsize=6, pad=2)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel("\n".join(wrap(query, 22)), fontsize=8, rotation=0, ha="right", va="center")
    return fig
