# LLM-assisted: prompts P12, P14, P15, see report.md
"""3.1.5: what half precision does to the probabilities of five pictures, one a class.

    python -m cvassign.study.half    # -> results/precision/probabilities.json

Of the ImageNet network whose answers are stored and of its twin. Notebook 3 reads the file, and
compares CLIP by the same functions where its weights are."""

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from cvassign.clip import gallery, imagenet, precision, zero_shot
from cvassign.results import RESULTS, write_json
from cvassign.study import answers, twin

OUT = RESULTS / "precision" / "probabilities.json"
LOW = tuple(zero_shot.DTYPES)  # fp16, bf16
UNSURE = (0.3, 0.9)  # the best probability: near 0 or 1 a softmax hides every difference


def five() -> list[gallery.Picture]:
    """Of each branch the first photo that both stored models name, the network unsure."""
    photos = [p for p in twin.held_out(gallery.read(gallery.BUNDLED)) if p.kind == "photo"]
    said, words = (answers.load(model).of(photos) for model in answers.MODELS)
    both, best, first = (said.ranks == 1) & (words.ranks == 1), said.probabilities[:, 0], {}
    for p, right, probability in zip(photos, both, best):
        if right and UNSURE[0] <= probability <= UNSURE[1]:
            first.setdefault(p.branch, p)
    return list(first.values())[:5]


def lower(model, name: str):
    """A copy of an `imagenet.Classifier` or a `zero_shot.ZeroShot`, its image encoder in one of
    `LOW`; class vectors stay as they are."""
    if isinstance(model, zero_shot.ZeroShot):
        return zero_shot.ZeroShot(model.encoder.to(name), names=model.names, weights=model.weights)
    return replace(model, model=zero_shot.convert(model.model, name), cache=None, progress=False)


def compared(model, pictures: list[gallery.Picture], low: Sequence[str] = LOW) -> dict:
    """A model's probabilities of n pictures in fp32 and in the precisions of `low`: {"top": (n, 5)
    classes by fp32, the best first, "fp32": (n, 5) their probabilities, and for each of `low`
    {"top": the same, "largest": (n,) largest change among all classes}}."""
    full = model.logits(pictures).softmax(-1)
    best, top = full.topk(5)
    out = {"top": top.tolist(), "fp32": best.tolist()}
    for name in low:
        found = lower(model, name).logits(pictures).softmax(-1)
        largest = (found - full).abs().amax(1).tolist()
        out[name] = {"top": found.gather(1, top).tolist(), "largest": largest}
    return out


def table(found: dict, pictures: list[gallery.Picture]) -> list[dict[str, str]]:
    """A row a picture of `compared`: fp32's first answer, its probability in each precision, and
    the largest change among all classes, alone and beside the first answer's lead."""
    rows, names = [], imagenet.class_names()
    for i, p in enumerate(pictures):
        row = {"picture": p.class_name, "answer": names[found["top"][i][0]]}
        row["fp32"] = f"{found['fp32'][i][0]:.5f}"
        for low in (name for name in LOW if name in found):
            row[low] = f"{found[low]['top'][i][0]:.5f}"
            largest, (first, second) = found[low]["largest"][i], found["fp32"][i][:2]
            row[f"largest |Δp|, {low}"] = f"{largest:.1e}"
            row[f"first − second / |Δp|, {low}"] = f"{(first - second) / largest:.0f}"
        rows.append(row)
    return rows


def layers(network: nn.Module, preprocess, pictures: list, low: Sequence[str] = LOW) -> dict:
    """{precision: `precision.error_by_layer`} of an image encoder on some pictures."""
    batch, convert = imagenet.stack(pictures, preprocess, network), zero_shot.convert
    return {name: precision.error_by_layer(network, convert(network, name), batch) for name in low}


def main() -> None:
    pictures, models = five(), answers.models()
    network = models["imagenet"]
    out = {
        "program": "python -m cvassign.study.half",
        "pictures": [answers.key(p) for p in pictures],
        "models": {m.name: compared(m, pictures) for m in models.values()},
        "layers": layers(network.model, network.preprocess, pictures),
    }
    write_json(out, OUT)
    print(OUT)


if __name__ == "__main__":
    main()
