# LLM-assisted: prompts P14, see report.md
"""3.1.4's stored comparison: ten classes by rule, and what brings the right class back.

    python -m cvassign.study.counterfactuals    # -> results/study/counterfactual.json

The ImageNet network of the twin's trunk against the twin, on the pictures of `gallery/` that the
twin was not trained on. Every change of `clip.counterfactual` is made to every drawing of a class
with a photo, to every cut-out photo, and to the pictures that the rule picks.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from cvassign.clip import counterfactual, gallery, imagenet
from cvassign.clip.counterfactual import AS_IS, CHANGES
from cvassign.results import RESULTS, write_json
from cvassign.stats import paired_bootstrap
from cvassign.study import twin

OUT = RESULTS / "study" / "counterfactual.json"


def moved(ranks: Sequence[dict], base: str = AS_IS) -> dict[str, dict]:
    """How far each change moves a model: `counterfactual.ranks` of n pictures, those that have the
    change against the same ones as they are, or under the change `base`.

    Returns:
        {change: {"n", "top5": [before, after] in %, "median": [before, after] of the ranks,
        "points": `Difference` of the top-5 rates, "factor": [mean, low, high] by which the rank is
        multiplied, a geometric mean: below 1 is better}}; intervals by picture.
    """
    out = {}
    for name in dict.fromkeys(name for r in ranks for name in r if name in CHANGES):
        pairs = np.array([[r[base][0], r[name][0]] for r in ranks if {name, base} <= set(r)])
        if not len(pairs):
            continue
        before, after = pairs.T
        log = paired_bootstrap(np.log2(before), np.log2(after))  # in hundredths of a doubling
        out[name] = {
            "n": len(pairs), "top5": (100 * (pairs <= 5).mean(0)).tolist(),
            "median": np.median(pairs, axis=0).tolist(),
            "points": vars(paired_bootstrap(before <= 5, after <= 5)),
            "factor": [2 ** (v / 100) for v in (log.mean, log.low, log.high)],
        }  # fmt: skip
    return out


def study(pictures: list[gallery.Picture], models: dict) -> dict:
    """The content of counterfactual.json.

    Args:
        pictures: the gallery.
        models: {name: model with `logits(pictures)`}: the ImageNet network first, the twin second.
    """
    new = twin.held_out(pictures)
    pool = new + gallery.close_ups(new)
    logits = {name: m.logits(pool) for name, m in models.items()}
    hits = [gallery.hits(pool, x) for x in logits.values()]
    chosen = gallery.select(pool, hits[1], hits[0])
    with_photo = {p.index for p in pictures if p.kind == "photo"}
    drawn = [p for p in pictures if p.kind != "photo" and p.index in with_photo]
    groups = {
        "drawings": [p for p in drawn if p in new],
        "cut-out photos": [p for p in new if p.style == "photo_cutout"],
        "drawings that the twin was trained on": [p for p in drawn if p not in new],
    }
    ten = [p for wins, loss in chosen.values() for p in (*wins, loss)]
    todo = list(dict.fromkeys(chain(ten, *groups.values())))
    images = [counterfactual.versions(p, pictures) for p in todo]
    ranks = {name: dict(zip(todo, counterfactual.ranks(m, images, [p.index for p in todo])))
             for name, m in models.items()}  # fmt: skip

    def stored(p: gallery.Picture) -> dict:
        i = pool.index(p)
        return {
            "path": p.path.relative_to(gallery.BUNDLED).as_posix(), "style": p.style,
            "box": p.cropped and p.cropped[1],
            "top": {m: imagenet.name_top(x[i : i + 1].softmax(-1))[0] for m, x in logits.items()},
            "ranks": {m: ranks[m][p] for m in models},
        }  # fmt: skip

    return {
        "program": "python -m cvassign.study.counterfactuals", "models": list(models),
        "styles": gallery.by_style(pool, *hits),
        "moved": {group: {m: moved([ranks[m][p] for p in some]) for m in models}
                  for group, some in groups.items()},
        # what the right surface does beyond what any surface does
        "surface against other surface": {
            m: moved([ranks[m][p] for p in groups["drawings"]], "other surface").get("surface")
            for m in models
        },
        "chosen": {imagenet.classes()[i].wnid: [stored(p) for p in (*wins, loss)]
                   for i, (wins, loss) in chosen.items()},
    }  # fmt: skip


def shown(stored: list[dict], pictures: list[gallery.Picture]) -> tuple[list, dict, list]:
    """One class of counterfactual.json as `clip.plots.answers` takes it: its pictures out of the
    gallery, each model's answers, and the strips of changes, drawn again."""
    found = {p.path.relative_to(gallery.BUNDLED).as_posix(): p for p in pictures}
    restored, strips = [], []
    for s in stored:
        p = found[s["path"]]
        p = replace(p, style=s["style"], cropped=s["box"] and (p.path, tuple(s["box"])))
        restored.append(p)
        strips.append({
            name: (image, {m: ranks[name][0] for m, ranks in s["ranks"].items()})
            for name, image in counterfactual.versions(p, pictures).items()
        })  # fmt: skip
    return restored, {m: [s["top"][m] for s in stored] for m in stored[0]["top"]}, strips


def main() -> int:
    """Scores, picks, changes, and writes the file: an hour of one core, mostly ResNet-50's."""
    classifier = twin.Features.of(twin.own_trunk(imagenet.load_resnet50()))
    words = twin.load(classifier).zero_shot()
    models = {classifier.name: classifier, words.name: words}
    write_json(study(gallery.read(gallery.BUNDLED), models), OUT)
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
