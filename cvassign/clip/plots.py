# LLM-assisted: prompts P3, P4, P9, P12, P14, P15, see report.md
"""The figures of notebook 3: each function takes numbers or pictures and returns a Figure."""

import textwrap

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator

from cvassign.clip import imagenet
from cvassign.figure import legend_below, styled
from cvassign.pictures import open_rgb
from cvassign.stats import interval

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#E69F00", "#009E73", "#999999"  # safe for colour blindness
PAIR = ("#332288", "#AA4499")  # the ImageNet network, and the model of words beside it

# Of each column the boxes from top to bottom; what differs between the two networks has a colour.
ARCHITECTURES = {
    "ImageNet RN50: stem": [
        ("image 3 × 224 × 224", GREY), ("conv 7 × 7, stride 2 → 64 × 112 × 112", BLUE),
        ("BatchNorm, ReLU", GREY), ("max pool 3 × 3, stride 2 → 64 × 56 × 56", ORANGE)],
    "CLIP RN50: stem": [
        ("image 3 × 224 × 224", GREY), ("conv 3 × 3, stride 2 → 32 × 112 × 112", BLUE),
        ("conv 3 × 3 → 32 × 112 × 112", BLUE), ("conv 3 × 3 → 64 × 112 × 112", BLUE),
        ("BatchNorm and ReLU after each of the three", GREY),
        ("average pool 2 × 2 → 64 × 56 × 56", GREEN)],
    "ImageNet RN50: first block of stages 2–4": [
        ("conv 1 × 1", BLUE), ("conv 3 × 3, stride 2", ORANGE), ("conv 1 × 1", BLUE),
        ("+ shortcut: conv 1 × 1, stride 2", ORANGE), ("ReLU", GREY)],
    "CLIP RN50: first block of stages 2–4": [
        ("conv 1 × 1", BLUE), ("conv 3 × 3, stride 1", BLUE), ("average pool 2 × 2", GREEN),
        ("conv 1 × 1", BLUE), ("+ shortcut: average pool 2 × 2, conv 1 × 1", GREEN),
        ("ReLU", GREY)],
    "ImageNet RN50: head": [
        ("2048 × 7 × 7", GREY), ("global average pool → 2048", ORANGE),
        ("linear → 1000 logits", BLUE)],
    "CLIP RN50: head": [
        ("2048 × 7 × 7 = 49 tokens", GREY), ("mean token in front, + positions → 50 × 2048", GREEN),
        ("attention, 32 heads: query = mean token,\nkeys and values = all 50", GREEN),
        ("linear → 1024, the space shared with text", BLUE)],
}  # fmt: skip


@styled
def architectures() -> Figure:
    """Stem, a downsampling block and head of both ResNet-50, side by side."""
    fig, axes = plt.subplots(2, 3, figsize=(9.5, 6.8))
    for ax, (title, boxes) in zip(axes.T.flat, ARCHITECTURES.items()):
        ax.set(xlim=(0, 1), ylim=(len(boxes), -0.2), title=title)
        ax.axis("off")
        for i, (text, colour) in enumerate(boxes):
            box = {"boxstyle": "round,pad=0.4", "fc": colour, "alpha": 0.25, "ec": colour}
            ax.text(0.5, i + 0.4, text, ha="center", va="center", fontsize=8, bbox=box)
            if i:
                ax.annotate("", (0.5, i + 0.1), (0.5, i - 0.3), arrowprops={"arrowstyle": "->"})
    return fig


@styled
def subtree(wnids: list[str]) -> Figure:
    """The classes' longest paths from "entity", merged into one tree, leaves in colour."""
    whole = [imagenet.paths(w)[-1] for w in wnids]
    paths = sorted({path[:n] for path in whole for n in range(1, len(path) + 1)})  # depth first
    place = {path[-1]: (len(path) - 1, y) for y, path in enumerate(paths)}
    fig, ax = plt.subplots(figsize=(8, 0.2 * len(paths) + 0.4))
    curated = dict(zip((c.wnid for c in imagenet.classes()), imagenet.class_names()))
    for *_, above, wnid in paths[1:]:
        (xa, ya), (xb, yb) = place[above], place[wnid]
        ax.plot([xa, xa, xb], [ya, yb, yb], color=GREY, lw=0.8, zorder=0)
    for w, (x, y) in place.items():
        look = {"va": "center", "color": BLUE if w in wnids else "black", "fontsize": 8}
        name = curated.get(w, imagenet.synsets()[w].lemmas[0])
        ax.text(x, y, name, bbox={"fc": "white", "ec": "none", "pad": 1}, **look)
    ax.set(xlim=(-0.3, max(map(len, paths)) + 2), ylim=(len(paths), -1))
    ax.axis("off")
    return fig


@styled
def rates_by_style(styles: dict[str, dict], models: list[str]) -> Figure:
    """Top-5 rates of the network and its twin and their paired difference: `gallery.by_style`."""
    fig, ax = plt.subplots(figsize=(9.5, 0.27 * len(styles) + 1.1))
    for y, s in enumerate(styles.values()):
        ax.plot(s["rates"], [y, y], color="0.8", lw=2, zorder=1)
        ax.text(103, y, interval(vars(s["difference"]), "+.1f"), va="center", fontsize=8)
    for i, model in enumerate(models):
        rates = [s["rates"][i] for s in styles.values()]
        ax.plot(rates, range(len(rates)), "o", color=PAIR[i], label=model)
    labels = [f"{name.replace('_', ' ')} (n = {s['n']})" for name, s in styles.items()]
    ax.set_yticks(range(len(styles)), labels)
    ax.set(xlabel="own class in the top five [%]", xlim=(0, 101), ylim=(len(styles) - 0.5, -0.9))
    ax.text(103, -0.8, "twin − network [points, 95 %]", va="center", fontsize=8)
    return legend_below(fig)


@styled
def moved(models: dict[str, dict], meanings: dict[str, str]) -> Figure:
    """How far each change moves each model, with 95 % intervals over classes, and on how many
    pictures, from {model: `study.counterfactuals.moved`} and {change: what it is}."""
    fig, (rate, rank) = plt.subplots(1, 2, figsize=(9.5, 0.3 * len(meanings) + 1), sharey=True)
    for i, (model, changes) in enumerate(models.items()):
        label = f"{model}: {next(iter(changes.values()))['top5'][0]:.0f} % before a change"
        y = [k + 0.3 * (i - 0.5) for k in range(len(meanings))]
        for ax, unit in ((rate, "points"), (rank, "factor")):
            keys = ("mean", "low", "high")
            mean, low, high = ([changes[c][unit][k] for c in meanings] for k in keys)
            ax.hlines(y, low, high, color=PAIR[i])
            ax.plot(mean, y, "o", ms=4, color=PAIR[i], label=label)
    n = [f"{changes[c]['n']} ({changes[c]['points']['n']})" for c in meanings]
    rank.secondary_yaxis(1).set(yticks=range(len(n)), yticklabels=n, ylabel="pictures (classes)")
    rate.set_yticks(range(len(meanings)), meanings.values())
    rate.set_ylim(len(meanings) - 0.5, -0.5)
    rate.set_xlabel("change of the top-5 rate\n[points, 95 % over classes]")
    rank.set(xlabel="the right class's rank\nis multiplied by [95 %]", xscale="log")
    rank.xaxis.set_major_locator(LogLocator(4))
    rank.xaxis.set_major_formatter(lambda x, _: f"{x:g}" if x >= 1 else f"1/{1 / x:g}")
    rank.minorticks_off()
    for ax, same in ((rate, 0), (rank, 1)):
        ax.axvline(same, color="0.4", lw=0.8, zorder=0)
    return legend_below(fig)


@styled
def answers(pictures: list, tops: dict[str, list], strips: list[dict] | None = None) -> Figure:
    """Pictures, close-ups as windows of their photos, with the answers of each model, from {model:
    [(name, probability), …] a picture}: the own class is bold, what is accepted as well green.
    `strips` are what changes do: {change: (image, {model: rank of the right class})} a picture."""
    if hidden := [p.path.name for p in pictures if not p.may_be_shown]:
        raise ValueError(f"these pictures may not be in a committed figure: {hidden}")
    side, names, first = (1.25, 1.72, 1.4) if strips else (0.95, 1.7, 1.2)  # inches
    head, columns = 0.4, 1 if strips else 2
    heights = [2.4 if len(s) > 7 else 1.65 for s in strips] if strips else [1.3] * len(pictures)
    heights = heights[::columns]
    total = sum(heights) + head
    fig, colours = plt.figure(figsize=(9.5, total), layout="none"), (*PAIR, GREY)

    def write(x: float, y: float, text: str, colour: str = "black", **more) -> None:
        """Text at x inches from the left and y from the top."""
        fig.text(x / 9.5, 1 - y / total, text, color=colour, fontsize=7, **more)

    def picture(x: float, y: float, side: float, image, title: str, cropped=None) -> None:
        """In a square with this corner, with the window of a `Picture` that is `cropped`."""
        ax = fig.add_axes((x / 9.5, 1 - (y + side) / total, side / 9.5, side / total))
        image = image.copy()
        image.thumbnail((160, 160))
        ax.imshow(image, interpolation="antialiased")
        ax.axis("off")
        write(x + side / 2, y - 0.03, title.replace("_", " "), ha="center", va="bottom")
        if cropped:
            left, top, right, bottom = (share * n for share, n in zip(cropped[1], image.size * 2))
            look = {"fill": False, "ec": "red", "lw": 1.5, "clip_on": False}
            ax.add_patch(Rectangle((left, top), right - left, bottom - top, **look))

    beside = first + names * len(tops)  # where the strips begin
    if strips:
        write(beside, head - 0.19, "the right class's rank after each change, bold in the top five")
        for i, (word, model) in enumerate(zip(("left", "right"), tops)):
            write(beside + 1.8 * i, head - 0.05, f"{word}: {model}", colour=colours[i])
    for r, p in enumerate(pictures):
        left, y = 4.75 * (r % columns), head + sum(heights[: r // columns])
        title = f"{p.class_name}\n{p.style}"
        picture(left + 0.05, y + 0.3, side, open_rgb(p.path), title, p.cropped)
        right = {imagenet.class_names()[k] for k in p.accept} | {p.class_name}
        for i, (model, top) in enumerate(tops.items()):
            x = left + first + names * i
            if r < columns:
                write(x, head, textwrap.fill(model, 26), colour=colours[i], weight="bold")
            line = y + 0.17
            for k, (name, probability) in enumerate(top[r]):
                look = {"colour": GREEN if name in right else "black", "va": "top"}
                look["weight"] = "bold" if name == p.class_name else "normal"
                parts = textwrap.wrap(name, 21)  # a long name goes on below
                write(x, line, f"{k + 1}  " + "\n    ".join(parts), **look)
                write(x + names - 0.12, line, f"{probability:.2f}", ha="right", **look)
                line += 0.07 + 0.11 * len(parts)
        for k, (change, (image, ranks)) in enumerate(strips[r].items() if strips else ()):
            x, above = beside + 0.65 * (k % 7), y + 0.33 + 1.15 * (k // 7)
            picture(x, above, 0.6, image, textwrap.fill(change, 9, break_long_words=False))
            for i, rank in enumerate(ranks.values()):
                look = {"ha": ("right", "left")[i], "weight": "bold" if rank <= 5 else "normal"}
                write(x + 0.27 + 0.06 * i, above + 0.72, str(rank), colour=PAIR[i], **look)
    return fig


@styled
def gallery_rows(rows: dict[str, list], also: dict[str, str] | None = None) -> Figure:
    """A row of pictures beside each name: class, style, and what some classes are called also."""
    width = max(map(len, rows.values()))
    fig, axes = plt.subplots(len(rows), width, figsize=(9.5, 1.75 * len(rows)), squeeze=False)
    plt.setp(axes.ravel(), frame_on=False, xticks=(), yticks=())
    for line, (name, pictures) in zip(axes, rows.items()):
        for ax, p in zip(line, pictures):
            ax.imshow(p.image)
            other = f" or {also[p.class_name]}?" if p.class_name in (also or {}) else ""
            ax.set_title(f"{p.class_name}{other}\n{p.style.replace('_', ' ')}", fontsize=7.5)
        line[0].set_ylabel(textwrap.fill(name, 16), rotation=0, ha="right", va="center")
    return fig


@styled
def memory(entries: dict[str, dict], title: str) -> Figure:
    """Stacked memory during one forward pass, a panel a precision, one scale, from {precision: a
    `precision.memory` result with its timeline}."""
    fig, axes = plt.subplots(1, len(entries), figsize=(9.5, 3), sharey=True, squeeze=False)
    names = ("weights", "input", "activations", "workspace")
    look = dict(colors=(BLUE, GREY, ORANGE, GREEN), step="post", labels=names)
    for ax, (name, m) in zip(axes[0], entries.items()):
        line, x = m["timeline"], range(len(m["timeline"]["ms"]))
        fixed = ([line[k] / 2**20] * len(x) for k in names[:2])
        ax.stackplot(x, *fixed, *([b / 2**20 for b in line[k]] for k in names[2:]), **look)
        ax.set(title=f"{name}: peak {m['peak'] / 2**20:.1f} MiB", xlabel="allocator event")
    axes[0, 0].set_ylabel("MiB")
    return legend_below(fig, title)


@styled
def layer_errors(encoders: dict[str, dict[str, list[dict]]]) -> Figure:
    """Relative error layer by layer, a panel an encoder, one scale, from {encoder: {precision:
    `precision.error_by_layer`}}."""
    fig, axes = plt.subplots(1, len(encoders), figsize=(9.5, 3.2), sharey=True, squeeze=False)
    for ax, (title, layers) in zip(axes[0], encoders.items()):
        for colour, (name, entries) in zip((BLUE, ORANGE), layers.items()):
            errors = [e["relative"] for e in entries]
            ax.plot([e["layer"] for e in entries], errors, "o-", ms=3, color=colour, label=name)
        ax.set_title(textwrap.fill(title, 45), fontsize=9)
        ax.set(yscale="log", xlabel="layer, in the order of the forward pass")
        ax.tick_params(axis="x", rotation=90, labelsize=6.5)
    axes[0, 0].set_ylabel("relative error to fp32")
    return legend_below(fig)
