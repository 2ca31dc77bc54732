# LLM-assisted: prompts P14, P15, see report.md
"""3.1.4's stored comparison: ten classes by rule, and what brings the right class back.

    python -m cvassign.study.counterfactuals    # -> results/study/counterfactual.json

The twin's ImageNet network against the twin, on the pictures of `gallery/` that the twin was not
trained on. Who gets which picture is read from `study.answers`. Every change of
`clip.counterfactual` is made to every drawing of a class with a photo, to every cut-out photo, and
to the pictures that the rule picks."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from torch import Tensor

from cvassign.clip import counterfactual, gallery
from cvassign.clip.counterfactual import AS_IS, CHANGES
from cvassign.results import RESULTS, write_json
from cvassign.stats import clustered_bootstrap
from cvassign.study import answers, twin

OUT = RESULTS / "study" / "counterfactual.json"


def candidates() -> tuple[list[gallery.Picture], list[Tensor]]:
    """The pictures and close-ups that the twin was not trained on, and the hits (n,) of the
    ImageNet network and of the twin on them."""
    pool = twin.held_out(answers.pool())
    return pool, [answers.load(model).of(pool).ranks <= 5 for model in answers.MODELS]


def moved(ranks: Sequence[dict], classes: Sequence[int], base: str = AS_IS) -> dict[str, dict]:
    """How far each change moves a model: those of n pictures that have the change, against the same
    ones as they are, or under the change `base`.

    Args:
        ranks: `counterfactual.ranks` of n pictures.
        classes: of each, its class. Intervals are over classes: drawings of one borrow from the
            same photos.

    Returns:
        {change: {"n", "top5": [before, after] in %, "median": [before, after] of the ranks,
        "points": `Difference` of the top-5 rates, "factor": {mean, low, high} by which the rank is
        multiplied, a geometric mean: below 1 is better}}."""
    out = {}
    for name in dict.fromkeys(name for r in ranks for name in r if name in CHANGES):
        some = [i for i, r in enumerate(ranks) if {name, base} <= set(r)]
        if not some:
            continue
        pairs = np.array([[ranks[i][base][0], ranks[i][name][0]] for i in some])
        of = [classes[i] for i in some]
        log = clustered_bootstrap(*np.log2(pairs).T, of, "classes")  # hundredths of a doubling
        found = {"n": len(some), "top5": (100 * (pairs <= 5).mean(0)).tolist()}
        found["median"] = np.median(pairs, axis=0).tolist()
        found["points"] = vars(clustered_bootstrap(*(pairs <= 5).T, of, "classes"))
        factor = {k: 2 ** (getattr(log, k) / 100) for k in ("mean", "low", "high")}
        out[name] = found | {"factor": factor}
    return out


def study(pictures: list[gallery.Picture], picked: list[gallery.Picture], models: Sequence) -> dict:
    """The content of counterfactual.json, of the gallery's pictures by the ImageNet network and the
    twin; the ranks of those that are picked are stored one by one."""
    new = set(twin.held_out(pictures))
    with_photo = {p.index for p in pictures if p.kind == "photo"}
    drawn = [p for p in pictures if p.kind != "photo" and p.index in with_photo]
    groups = {
        "drawings": [p for p in drawn if p in new],
        "cut-out photos": [p for p in pictures if p in new and p.style == "photo_cutout"],
        "drawings that the twin was trained on": [p for p in drawn if p not in new],
    }
    todo = list(dict.fromkeys(chain(picked, *groups.values())))
    images = [counterfactual.versions(p, pictures) for p in todo]
    classes = [p.index for p in todo]
    ranks = {m.name: dict(zip(todo, counterfactual.ranks(m, images, classes))) for m in models}

    def of(name: str, group: str, base: str = AS_IS) -> dict:
        some = groups[group]
        return moved([ranks[name][p] for p in some], [p.index for p in some], base)

    # what the right surface does beyond what any surface does
    surface = {n: of(n, "drawings", "other surface").get("surface") for n in ranks}
    return {
        "program": "python -m cvassign.study.counterfactuals",
        "moved": {group: {name: of(name, group) for name in ranks} for group in groups},
        "surface against other surface": surface,
        "ranks": {answers.key(p): {name: ranks[name][p] for name in ranks} for p in picked},
    }


def strips(pictures: list[gallery.Picture], lenders: list[gallery.Picture], stored: dict) -> list:
    """As `counterfactual.strips`, the ranks from counterfactual.json."""
    ranks = [stored["ranks"][answers.key(p)] for p in pictures]
    return counterfactual.ranked([counterfactual.versions(p, lenders) for p in pictures], ranks)


def main() -> None:
    """Picks, changes, scores, and writes the file: an hour of one core, mostly ResNet-50's."""
    pool, (network, words) = candidates()
    rows = gallery.select(pool, words, network).values()
    picked = [p for wins, loss in rows for p in (*wins, loss)]
    write_json(study(gallery.read(gallery.BUNDLED), picked, [*answers.models().values()]), OUT)
    print(OUT)


if __name__ == "__main__":
    main()
