# LLM-assisted: prompts P12, P14, P15, see report.md
"""3.1.5: what half precision does to the probabilities of five pictures, one a class.

    python -m cvassign.study.half    # -> results/precision/probabilities.json

Of the ImageNet network whose answers are stored and of its twin. Notebook 3 reads the file, and
compares CLIP by the same functions where its weights are.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace

import torch

from cvassign import assets
from cvassign.clip import gallery, imagenet, precision, zero_shot
from cvassign.results import RESULTS, write_json
from cvassign.study import answers, twin

OUT = RESULTS / "precision" / "probabilities.json"
LOW = tuple(zero_shot.DTYPES)  # fp16, bf16
UNSURE = (0.3, 0.6)  # the best probability: near 0 or 1 a softmax hides every difference


def five() -> list[gallery.Picture]:
    """One photo a class: of each branch the first of which the ImageNet network is unsure."""
    photos = [p for p in twin.held_out(gallery.read(gallery.BUNDLED)) if p.kind == "photo"]
    best = answers.load("imagenet").of(photos).probabilities[:, 0].tolist()
    first = {}
    for p, probability in zip(photos, best):
        if UNSURE[0] <= probability <= UNSURE[1]:
            first.setdefault(p.branch, p)
    return list(first.values())[:5]


def lower(model, name: str):
    """A copy of a classifier over the 1000 classes, its image encoder in one of `LOW`.

    Args:
        model: `imagenet.Classifier`, or `zero_shot.ZeroShot`, whose class vectors stay as they are.
    """
    if isinstance(model, zero_shot.ZeroShot):
        return zero_shot.ZeroShot(model.encoder.to(name), names=model.names, weights=model.weights)
    return replace(model, model=zero_shot.convert(model.model, name), cache=None, progress=False)


def compared(model, pictures: list[gallery.Picture], low: Sequence[str] = LOW) -> dict:
    """A model's probabilities of n pictures in fp32 and in the precisions of `low`.

    Returns:
        {"top": (n, 5) classes by fp32, the best first, "fp32": (n, 5) their probabilities, and for
        each of `low` {"top": the same, "largest": (n,) largest change among all classes, "changed":
        how many first answers change, "ranks": places that one of `top` moves at most}}.
    """
    full = model.logits(pictures).softmax(-1)
    top = full.topk(5).indices
    out = {"top": top.tolist(), "fp32": full.gather(1, top).tolist()}
    for name in low:
        found = lower(model, name).logits(pictures).softmax(-1)
        out[name] = {
            "top": found.gather(1, top).tolist(),
            "largest": (found - full).abs().amax(1).tolist(),
            "changed": int((found.argmax(1) != top[:, 0]).sum()),
            "ranks": precision.compare(full, found)["max_rank_change"],
        }
    return out


def table(found: dict, pictures: list[gallery.Picture]) -> list[dict[str, str]]:
    """A row a picture of `compared`: fp32's first answer, its probability in each precision, and
    the largest change among all classes."""
    rows, names = [], imagenet.class_names()
    for i, (p, top) in enumerate(zip(pictures, found["top"])):
        row = {"picture": p.class_name, "answer": names[top[0]]}
        row["fp32"] = f"{found['fp32'][i][0]:.5f}"
        for low in (name for name in LOW if name in found):
            row[low] = f"{found[low]['top'][i][0]:.5f}"
            row[f"largest |Δp|, {low}"] = f"{found[low]['largest'][i]:.1e}"
        rows.append(row)
    return rows


def layers(
    network: torch.nn.Module, preprocess, pictures: list, low: Sequence[str] = LOW
) -> dict[str, list[dict]]:
    """{precision: `precision.error_by_layer`} of an image encoder on some pictures."""
    batch = imagenet.stack(pictures, preprocess, network)
    return {
        name: precision.error_by_layer(network, zero_shot.convert(network, name), batch)
        for name in low
    }


def main() -> int:
    """Computes and writes the file: minutes on a core without instructions for these types."""
    pictures, network = five(), imagenet.from_keras(assets.fetch("resnet50-keras"))
    models = (network, twin.load(network).zero_shot())
    out = {
        "program": "python -m cvassign.study.half",
        "pictures": [answers.key(p) for p in pictures],
        "models": {m.name: compared(m, pictures) for m in models},
        "layers": layers(network.model, network.preprocess, pictures),
    }
    write_json(out, OUT)
    print(OUT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
