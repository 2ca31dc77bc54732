# LLM-assisted: prompts P4, see report.md
"""Trains the text-aligned twin with everything that is compared, and writes results/twin.

    python -m cvassign.study.twin_study [--out results/twin] [--seeds 3]

Needs the pictures of CVASSIGN_DATA, the assets "resnet50-keras" (or torchvision's weights),
"minilm-l6", "openclipart-png" and "iconify", and the package resvg-py. Features and sentences are
computed once and kept in the cache.

Epochs and settings are chosen on the validation sources alone. The test sources were measured four
times: after the first emoji joined the validation, which until then had none; after the second
fourteen of Iconify's sets joined training and validation, as the test's icons had been the weakest;
before the fourth all its sets took their place in training, which the validation sources favour.
"""

import argparse
import hashlib
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, stdev

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from cvassign import assets, results
from cvassign.clip import gallery, imagenet, zero_shot
from cvassign.study import icons, sentences, twin, twin_data
from cvassign.files import replacing

MAIN = "linear"
VARIANTS = {
    MAIN: twin.TwinConfig(),
    "MLP": twin.TwinConfig(head="mlp", lr=3e-4),
    "one template": twin.TwinConfig(templates="single"),
    "without icons": twin.TwinConfig(icons=False),
    "with captions": twin.TwinConfig(captions=True),
    "captions in the place of labelled renditions": twin.TwinConfig(renditions=False, captions=True),
    "photos alone": twin.TwinConfig(renditions=False),
    "from nothing": twin.TwinConfig(start=False),
}  # fmt: skip
# Cosine of two pictures' features: above DUPLICATE they are the same picture; above COPY and of one
# class, one is redrawn from the other, as sets of icons often are.
DUPLICATE, COPY = 0.98, 0.95
FOLDS = 4  # a fourth of the classes is kept from training, to see classes never trained on


@dataclass
class Data:
    """All that training and measuring need, as tensors."""

    pictures: dict[str, list[gallery.Picture]]  # by part
    features: dict[str, Tensor]  # by part, (n, 2048), row by row of `pictures`
    classes: dict[str, Tensor]  # templates -> (1000, T, E), each sentence by itself
    captions: Tensor  # (M, 2, E): title, and title with description
    caption_features: Tensor  # (M, 2048)
    fc: torch.nn.Linear  # the classifier's last layer
    duplicates: int  # training pictures left out, because a measured picture is the same …
    copies: int  # … or because another training picture nearly is


def sentence_vectors(texts: list[str]) -> Tensor:
    """`sentences.minilm()(texts)`, kept in the cache folder."""
    key = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    file = assets.cache_dir() / f"twin-sentences-{key}.safetensors"
    if not file.exists():
        with replacing(file) as temporary:
            save_file({"vectors": sentences.minilm()(texts)}, temporary)
    return load_file(file)["vectors"]


def collect(features: twin_data.Features, templates: tuple = ("single", "seven")) -> Data:
    """Reads the pictures, computes features and sentences, and drops duplicates from training.

    Args:
        features: of the trunk.
        templates: keys of zero_shot.TEMPLATES whose sentences are wanted.
    """
    pictures = twin_data.split(gallery.load())
    for p in icons.load(pictures["train"]):
        pictures[twin_data.part_of(p.source)].append(p)
    x = {part: features([p.path for p in some], progress=True, fast=part == "train")
         for part, some in pictures.items()}  # fmt: skip
    measured = F.normalize(torch.cat([x["validation"], x["test"]]), dim=-1)

    def new(some: Tensor) -> list[bool]:
        """Which of the training features belong to no measured picture."""
        return ((F.normalize(some, dim=-1) @ measured.T).max(dim=1).values <= DUPLICATE).tolist()

    def keep(which: list[bool]) -> int:
        """Keeps these training pictures; says how many are left out."""
        pictures["train"] = [p for p, k in zip(pictures["train"], which) if k]
        x["train"] = x["train"][which]
        return which.count(False)

    duplicates = keep(new(x["train"]))
    copies = keep(originals(x["train"], pictures["train"]))
    names = imagenet.class_names()
    classes = {
        t: sentence_vectors([s(n) for n in names for s in zero_shot.TEMPLATES[t]]).unflatten(0, (1000, -1))
        for t in templates
    }
    found = twin_data.openclipart()
    words = sentence_vectors([t for c in found for t in (c.title, c.caption)]).unflatten(0, (-1, 2))
    captioned = features([c.image for c in found], progress=True, fast=True)
    new_captions = new(captioned)
    return Data(pictures, x, classes, words[new_captions], captioned[new_captions], features.fc,
                duplicates + new_captions.count(False), copies)  # fmt: skip


def originals(features: Tensor, pictures: list[gallery.Picture]) -> list[bool]:
    """Which pictures are no `COPY` of an earlier one of their class."""
    unit, of_class, out = F.normalize(features, dim=-1), defaultdict(list), []
    for i, p in enumerate(pictures):
        earlier = of_class[p.index]
        out.append(not earlier or (unit[earlier] @ unit[i]).max().item() <= COPY)
        if out[-1]:
            earlier.append(i)
    return out


def pairs(data: Data, config: twin.TwinConfig, without: set[int] = frozenset()) -> twin.Pairs:
    """The training pairs of a configuration.

    Args:
        without: classes of which no picture is used.
    """
    table = data.classes[config.templates]  # (1000, T, E)
    wanted = {"photo": config.photos, "rendition": config.renditions}
    rows = [i for i, p in enumerate(data.pictures["train"])
            if p.index not in without and wanted[p.kind]
            and (config.icons or not p.source.startswith(icons.PACKAGE))]  # fmt: skip
    x = [data.features["train"][rows]]
    text = [torch.tensor([data.pictures["train"][i].index for i in rows], dtype=torch.long)]
    if config.captions:
        x.append(data.caption_features)
        text.append(len(table) + torch.arange(len(data.captions)))
        turns = torch.arange(table.shape[1]) % data.captions.shape[1]
        table = torch.cat([table, data.captions[:, turns]])  # as many sentences a row
    return twin.Pairs(torch.cat(x), torch.cat(text), table)


def train(data: Data, config: twin.TwinConfig, seed: int, without: set[int] = frozenset()):
    """`twin.train` on `pairs`, from the classifier put into the configuration's words."""
    start = None
    if config.start:
        vectors = class_vectors(data.classes[config.templates])
        start = data.fc, twin.put_into_words(vectors, config.ridge)
    return twin.train(pairs(data, config, without), config, seed,
                      score_on_validation(data, config), start)  # fmt: skip


def class_vectors(each: Tensor) -> Tensor:
    """(K, T, E) sentences to (K, E) unit vectors, as `zero_shot.ZeroShot` does."""
    return F.normalize(each.mean(dim=1), dim=-1)


def top5_by_kind(pictures: list[gallery.Picture], logits: Tensor, k: int = 5) -> dict[str, float]:
    """Hit rates of photos and of renditions."""
    hit = gallery.hits(pictures, logits, k).double()
    photo = torch.tensor([p.kind == "photo" for p in pictures])
    return {"photo": hit[photo].mean().item(), "rendition": hit[~photo].mean().item()}


def calibration(pictures: list[gallery.Picture], logits: Tensor, bins: int = 15) -> dict:
    """Expected calibration error ("On Calibration of Modern Neural Networks", arXiv 1706.04599):
    the mean gap between the first answer's probability and how often it is right, by bins.

    Returns:
        `ece`, `confidence`, `accuracy`, and the bins that have pictures as
        `bins`: [mean probability, share right, n].
    """
    p, hit = logits.softmax(-1).max(-1).values.double(), gallery.hits(pictures, logits, 1).double()
    which = (p * bins).long().clamp(max=bins - 1)
    rows = [[p[which == b].mean().item(), hit[which == b].mean().item(), int((which == b).sum())]
            for b in range(bins) if (which == b).any()]  # fmt: skip
    ece = sum(n * abs(c - a) for c, a, n in rows) / len(p)
    return {"ece": ece, "confidence": p.mean().item(), "accuracy": hit.mean().item(), "bins": rows}


def temperature(pictures: list[gallery.Picture], logits: Tensor) -> float:
    """The divisor of the logits that is likeliest on (validation) pictures, from a fine grid."""
    truth = torch.tensor([p.index for p in pictures])
    grid = torch.logspace(-1, 1, 81)
    return min(grid.tolist(), key=lambda t: F.cross_entropy(logits / t, truth).item())


def rates(pictures: dict[str, list], logits: dict[str, Tensor]) -> dict:
    """Hit rates by kind on both measured parts."""
    return {
        "top5": top5_by_kind(pictures["test"], logits["test"]),
        "top1": top5_by_kind(pictures["test"], logits["test"], 1),
        "validation_top5": top5_by_kind(pictures["validation"], logits["validation"]),
    }


def details(pictures: dict[str, list], logits: dict[str, Tensor], seen: set[int]) -> dict:
    """What more is measured of the classifier and of the stored twin.

    Args:
        pictures, logits: by part, "validation" (for the temperature alone) and "test".
        seen: classes with a training picture; `share_seen` says how often the first answer is one
            of them, to be read beside the share of test pictures that are.
    """
    test, z = pictures["test"], logits["test"]
    t = temperature(pictures["validation"], logits["validation"])
    hit = gallery.hits(test, z)
    by_source = {}
    for source in sorted({p.source for p in test}):
        mine = hit[[p.source == source for p in test]]
        by_source[source] = [mine.double().mean().item(), len(mine)]
    return {
        "top5_by_style": gallery.rates(test, hit), "top5_by_source": by_source,
        "calibration": calibration(test, z), "temperature": t,
        "calibration_at_temperature": calibration(test, z / t),
        "share_seen": mean(i in seen for i in z.argmax(-1).tolist()),
    }  # fmt: skip


def logits_of(head: twin.Head, data: Data, weights: Tensor) -> dict[str, Tensor]:
    """Scaled cosines of the validation and test pictures."""
    with torch.inference_mode():
        return {part: head.scale * head(data.features[part]) @ weights.T
                for part in ("validation", "test")}  # fmt: skip


def score_on_validation(data: Data, config: twin.TwinConfig):
    """The early-stopping score: mean of photos' and renditions' top-5 on the validation sources."""
    weights = class_vectors(data.classes[config.templates])

    def score(head: twin.Head) -> float:
        z = head.scale * head(data.features["validation"]) @ weights.T
        return mean(top5_by_kind(data.pictures["validation"], z).values())

    return score


def over_seeds(values: list[float]) -> dict:
    """Mean, standard deviation (n - 1) and the values themselves."""
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else 0.0,
            "values": values}  # fmt: skip


def main(arguments: list[str] | None = None) -> Path:
    """Trains every variant, measures, and writes twin.json and the first seed's main head."""
    parser = argparse.ArgumentParser(prog="python -m cvassign.study.twin_study", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--out", type=Path, default=twin.FOLDER)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args(arguments)
    started = time.perf_counter()
    classifier = imagenet.load_resnet50()
    features = twin_data.Features(classifier)
    out = study(collect(features), features, args.seeds, args.out)
    out["seconds"] = time.perf_counter() - started
    results.write_json(out, args.out / "twin.json")
    print(f"{args.out / 'twin.json'} in {out['seconds']:.0f} s")
    return args.out / "twin.json"


def study(data: Data, features: twin_data.Features, seeds: int, folder: Path) -> dict:
    """Trains and measures; writes the first seed's main head and the slice into `folder`.

    Args:
        features: of the trunk, for its own classifier's logits.

    Returns:
        The content of twin.json.
    """
    started = time.perf_counter()
    names = sentence_vectors(imagenet.class_names())  # the bare name: no template at all
    weights = {"name": names} | {t: class_vectors(v) for t, v in data.classes.items()}
    seen = {p.index for p in data.pictures["train"]}
    own = {part: features.logits(data.features[part]) for part in ("validation", "test")}
    out = {
        "format": 1, "program": "python -m cvassign.study.twin_study", "trunk": features.name,
        "config": asdict(VARIANTS[MAIN]), "data_card": data_card(data),
        "duplicates_left_out": data.duplicates, "copies_left_out": data.copies,
        "near_duplicates": neighbours(data),
        "test_share_seen": mean(p.index in seen for p in data.pictures["test"]),
        "classifier": rates(data.pictures, own) | details(data.pictures, own, seen),
        "variants": {}, "templates": {},
    }  # fmt: skip
    main = VARIANTS[MAIN]
    words = twin.put_into_words(weights[main.templates], main.ridge)
    head = twin.Head(main, data.fc.in_features, words.shape[1], (data.fc, words)).eval()
    out["untrained"] = rates(data.pictures, logits_of(head, data, weights[main.templates]))
    for name, config in VARIANTS.items():
        runs = []
        for seed in range(seeds):
            head, history = train(data, config, seed)
            z = logits_of(head, data, weights[config.templates])
            runs.append(rates(data.pictures, z) | {"history": history})
            print(f"{name}, seed {seed}: epoch {history['best_epoch']}, validation "
                  f"{history['score'][history['best_epoch']]:.3f}, "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
            if name != MAIN:
                continue
            for t, w in weights.items():
                measured = top5_by_kind(data.pictures["test"], logits_of(head, data, w)["test"])
                out["templates"].setdefault(t, []).append(measured)
            if seed == 0:
                known = dict(zip(twin.QUERIES, sentence_vectors(list(twin.QUERIES))))
                stored = {config.templates: weights[config.templates]}
                twin.save(head, config, seed, stored, features.name, known, folder)
                out["stored"] = {
                    "seed": seed, "scale": head.scale.item(),
                    "parameters": sum(p.numel() for p in head.parameters() if p.requires_grad),
                    **details(data.pictures, z, seen),
                }  # fmt: skip
        out["variants"][name] = {
            "config": asdict(config), "pairs": len(pairs(data, config).text),
            **{f"{m}_{kind}": over_seeds([r[m][kind] for r in runs])
               for m in ("top5", "top1", "validation_top5") for kind in ("photo", "rendition")},
            "runs": runs,
        }  # fmt: skip
    out["unseen_classes"] = unseen(data, weights, seeds)
    store_slice(data, folder)
    return out


def unseen(data: Data, weights: dict[str, Tensor], seeds: int) -> dict:
    """Hit rates on classes of which no picture was trained on, beside the same classes seen.

    Every `FOLDS`-th class is kept from training, another fold each seed. Captions name things
    freely, also these: the main configuration has none, and here it may not.
    """
    config, out = replace(VARIANTS[MAIN], captions=False), {}
    indices = sorted({p.index for p in data.pictures["train"]})
    for seed in range(seeds):
        kept = set(indices[seed % FOLDS :: FOLDS])
        rows = [p.index in kept for p in data.pictures["test"]]
        some = [p for p, r in zip(data.pictures["test"], rows) if r]
        for label, without in (("unseen", kept), ("trained", frozenset())):
            head, _ = train(data, config, seed, without)
            z = logits_of(head, data, weights[config.templates])["test"][rows]
            for kind, rate in top5_by_kind(some, z).items():
                out.setdefault(f"{label}_{kind}", []).append(rate)
    return {k: over_seeds(v) for k, v in out.items()} | {"folds": FOLDS}


def neighbours(data: Data) -> dict:
    """How near the test pictures lie to training pictures: cosine of features, by source."""
    train = F.normalize(torch.cat([data.features["train"], data.caption_features]), dim=-1)
    nearest = (F.normalize(data.features["test"], dim=-1) @ train.T).max(dim=1).values
    out = {}
    for source in sorted({p.source for p in data.pictures["test"]}):
        mine = nearest[[p.source == source for p in data.pictures["test"]]]
        out[source] = {"median": mine.median().item(), "above_0.9": (mine > 0.9).double().mean().item()}
    return out


def data_card(data: Data) -> list[dict]:
    """One row a source: part, counts by kind, classes, licence; the captioned pictures last.

    The sets of icons that are trained on are one row, with all their licences.
    """
    rows = []
    for part, some in data.pictures.items():
        by_source = defaultdict(list)
        for p in sorted(some, key=lambda p: p.source):
            icon = part == "train" and p.source.startswith(icons.PACKAGE)
            by_source[icons.PACKAGE if icon else p.source].append(p)
        for source, mine in by_source.items():
            sets = len({p.source for p in mine})
            kinds = Counter(p.kind for p in mine)
            licences = [licence for licence, _ in Counter(p.licence for p in mine).most_common()]
            rows.append({
                "part": part, "source": source if sets == 1 else f"{source}, {sets} sets",
                "photos": kinds["photo"], "renditions": kinds["rendition"], "captioned": 0,
                "classes": len({p.index for p in mine}),
                "licence": licences[0] if sets == 1 else ", ".join(licences),
            })  # fmt: skip
    source = next(p.source for p in data.pictures["train"] if "openclipart" in p.source)
    rows.append({"part": "train", "source": f"{source}, by title", "photos": 0, "renditions": 0,
                 "captioned": len(data.captions), "classes": 0,
                 "licence": assets.ASSETS["openclipart-png"].licence})  # fmt: skip
    return rows


# A slice small enough to be committed, so that the tests can retrain the head anywhere.
SLICE, SLICE_CLASSES, SLICE_EVERY, SLICE_SEED = "slice.safetensors", 30, 8, 0
SLICE_CONFIG = twin.TwinConfig(head="mlp", hidden=128, start=False, lr=1e-3, batch_size=64,
                               max_epochs=20)  # fmt: skip


def store_slice(data: Data, folder: Path) -> None:
    """Every eighth feature of openly licensed pictures of the commonest classes, and what a head
    makes of them."""
    counts = Counter(p.index for p in data.pictures["test"] if p.may_be_shown)
    classes = [i for i, _ in counts.most_common(SLICE_CLASSES)]
    tensors = {"classes": torch.tensor(classes), "texts": data.classes["seven"][classes].half()}
    for part in ("train", "test"):
        rows = [i for i, p in enumerate(data.pictures[part]) if p.may_be_shown and p.index in classes]
        tensors[f"{part}_features"] = data.features[part][rows, ::SLICE_EVERY].half()
        tensors[f"{part}_labels"] = torch.tensor(
            [classes.index(data.pictures[part][i].index) for i in rows])  # fmt: skip
    with replacing(folder / SLICE) as file:
        save_file({k: v.contiguous() for k, v in tensors.items()}, file)
    results.write_json({"format": 1, "accuracy": train_slice(folder), "seed": SLICE_SEED,
                        "config": asdict(SLICE_CONFIG)}, folder / "slice.json")  # fmt: skip


def train_slice(folder: Path = twin.FOLDER, shuffled: bool = False) -> float:
    """Trains on the stored slice: top-1 accuracy on its test pictures, over its classes.

    Args:
        shuffled: give each training picture another's class, to see what chance makes.
    """
    t = load_file(folder / SLICE)
    labels, texts = t["train_labels"], t["texts"].float()
    if shuffled:
        labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    some = twin.Pairs(t["train_features"].float(), labels, texts)
    # no validation here: the last epoch counts, so a later score is always the better one
    turn = iter(range(SLICE_CONFIG.max_epochs))
    head, _ = twin.train(some, SLICE_CONFIG, SLICE_SEED, lambda _: next(turn))
    with torch.inference_mode():
        z = head(t["test_features"].float()) @ class_vectors(texts).T
    return (z.argmax(-1) == t["test_labels"]).double().mean().item()


if __name__ == "__main__":
    main()
