# LLM-assisted: prompts P6, see report.md
"""Part 3 of the report: the two ResNet-50, ImageNet's labels, zero-shot, CLIP against ImageNet,
half precision, and the text-aligned twin. Each function returns Markdown, see `report_sections`.
"""

from functools import lru_cache

import torch

from cvassign import clip, imagenet
from cvassign.report_numbers import Number, count, table
from cvassign.report_results import Report
from cvassign.report_sections import join

MIB = 1 / 2**20
TWIN = "twin/twin.json"


def sections(r: Report) -> list[str]:
    """All sections of part 3, in order."""
    return [
        "## 3 CLIP",
        architectures(r),
        labels(r),
        zero_shot(r),
        against_imagenet(r),
        twin(r),
        half_precision(r),
    ]


@lru_cache
def parameters() -> dict[str, dict[str, int]]:
    """Parameters by part of both image encoders; nothing is computed on the meta device."""
    from torchvision.models import resnet50

    with torch.device("meta"):
        return {"clip": clip.parts(clip.rn50().visual), "imagenet": clip.parts(resnet50())}


def architectures(r: Report) -> str:
    def n(model: str, part: str) -> Number:
        return Number(parameters()[model][part], ("parameters", model, part))

    words = ("stem", "first stage", "second stage", "third stage", "fourth stage", "head", "all")
    rows = [
        (name, r.put(n("clip", part), ",d"), r.put(n("imagenet", part), ",d"))
        for name, part in zip(words, parameters()["clip"], strict=True)
    ]
    return join(
        "### 3.1.1 Inference using CLIP: have the two ResNet-50 the same architecture?",
        "No. CLIP loads two towers, and the image tower differs from torchvision's ResNet-50 in "
        "three places; the four residual stages have the same parameter counts.",
        table(("parameters", "CLIP image tower", "ImageNet ResNet-50"), rows),
        "The *stem* has three small convolutions and an average pool, not one large convolution "
        "and a max pool. *Downsampling* is an average pool before a convolution of stride one, not "
        "a strided convolution, which skips samples and so aliases. The *head* is attention "
        "pooling, in which the mean of all places asks and all places answer, into the space that "
        "is shared with text; not a global average and a linear layer of class logits. "
        "Preprocessing differs as well.",
    )


def labels(r: Report) -> str:
    classes, above = count(imagenet.classes()), imagenet.synsets()
    classes = Number(classes.value, ("classes",))
    inner = Number(len(above) - classes.value, ("inner synsets",))
    return join(
        "### 3.1.2 Setup data: ImageNet's labels",
        f"**Hierarchy.** WordNet's *is-a* relation: {r.put(classes)} classes, none above another, "
        f"with {r.put(inner)} synsets above them up to *entity*. Some classes have several paths "
        "to the root, so it is no tree.",
        "**Synset.** A set of synonyms: words that name one concept, with a definition. The "
        "concept is the label; the words are only its names.",
        "**Problems of grouping by synset.** WordNet sorts by meaning, recognition needs looks. "
        "Things far apart in meaning can look the same (hair spray, lotion), one object can have "
        "two labels (laptop, notebook), a functional class can look like anything (container), and "
        "a picture often shows several objects but has one label.",
        "**Three visual differences within one synset.** The object itself: colour, shape, breed, "
        "age, part or whole. The view: pose, scale, occlusion, light, background. The depiction: "
        "photo, drawing, emoji, sculpture, silhouette. The notebook shows the third on openly "
        "licensed pictures.",
    )


NO_CLIP = (
    "*No measurement with OpenAI's weights is stored: they come from their official address only, "
    "which could not be reached. `python -m cvassign.assets get clip-rn50` fetches them where it "
    "can; then the notebook's cells are complete, without a change.*"
)


def zero_shot(r: Report) -> str:
    counts = ", ".join(
        f"{name} ({r.put(Number(len(clip.TEMPLATES[name]), ('templates', name)))})"
        for name in clip.TEMPLATES
    )
    return join(
        "### 3.1.3 Zero-shot CLIP",
        "A class's weight vector is the mean embedding of its sentences; a picture's logit is the "
        "cosine with it times the learned scale; the softmax over all classes gives probabilities "
        f"(`cvassign/clip.py`, `ZeroShot`). Sentence templates to choose from: {counts}. The whole "
        "path is tested with a randomly initialised model whose files are built, stored and loaded "
        "back to identical outputs.",
        NO_CLIP,
    )


def against_imagenet(r: Report) -> str:
    return join(
        "### 3.1.4 CLIP against ImageNet pretraining",
        "Pictures are not picked by hand: both models score every candidate of the gallery, and a "
        "rule picks classes from as many branches of the hierarchy as there are, two pictures that "
        "only the one has in its top five and one that only the other has. Source and licence "
        "stand beside each.",
        "*As above, no measurement with OpenAI's weights is stored; the notebook shows the hits "
        "and misses of "
        "the ImageNet network by style"
        + (", and the same table with the twin" if r.files.has(TWIN) else "")
        + ".*",
        "What to expect, and why: ImageNet's photos teach that a class is its texture and usual "
        "background, whereas captioned web pictures show the same words also as sketches and "
        "logos; ImageNet's classifier was trained on exactly these distinctions, also those that "
        "no caption makes.",
    )


def twin(r: Report) -> str:
    """Nothing as long as no twin is trained: the assignment does not ask for one."""
    if not r.files.has(TWIN):
        return ""
    text = join(
        "### Beside 3.1.4: a text-aligned twin of ResNet-50",
        "CLIP and ImageNet's network differ in data, objective and architecture at once. The twin "
        "keeps the trunk of the ImageNet network frozen, and only a small head is trained to match "
        "sentences (locked-image tuning, arXiv 2111.07991). The head starts as the network's own "
        "classifier put into words, so what differs from that classifier comes from the training "
        "pictures and their words. It is never called CLIP.",
    )
    study = r.files.read(TWIN)

    def rate(*keys) -> str:
        return r.put(r.files.get(TWIN, *keys).times(100), ".1f")

    rows = [
        (
            "ImageNet's classifier",
            rate("classifier", "top5", "photo"),
            rate("classifier", "top5", "rendition"),
        ),
        (
            "twin, untrained",
            rate("untrained", "top5", "photo"),
            rate("untrained", "top5", "rendition"),
        ),
    ]
    for name in study["variants"]:
        rows.append(
            (
                f"twin, {name}",
                *(
                    f"{rate('variants', name, f'top5_{kind}', 'mean')} ± "
                    f"{rate('variants', name, f'top5_{kind}', 'std')}"
                    for kind in ("photo", "rendition")
                ),
            )
        )
    main = next(iter(study["variants"]))
    gain, loss = (
        (
            r.files.get(TWIN, "variants", main, f"top5_{kind}", "mean")
            - r.files.get(TWIN, "classifier", "top5", kind)
        ).times(100)
        for kind in ("rendition", "photo")
    )
    icons = (
        r.files.get(TWIN, "variants", main, "top5_rendition", "mean")
        - r.files.get(TWIN, "variants", "without icons", "top5_rendition", "mean")
    ).times(100)
    seeds = r.put(count(study["variants"][main]["runs"]))
    errors = [
        r.put(r.files.get(TWIN, key, "calibration", "ece").times(100), ".1f")
        for key in ("classifier", "stored")
    ]
    card = [
        (
            row["part"],
            r.put(r.files.get(TWIN, "data_card", i, "source")),
            *(
                r.put(r.files.get(TWIN, "data_card", i, k))
                for k in ("photos", "renditions", "captioned", "classes", "licence")
            ),
        )
        for i, row in enumerate(study["data_card"])
    ]
    return join(
        text,
        "Right class in the top five of all classes, percent, on sources that were not trained on:",
        table(("classifier", "photos", "renditions"), rows),
        f"Mean ± std over {seeds} seeds. Against the classifier on the same trunk the twin changes "
        f"renditions by {r.put(gain, '+.1f')} points and photos by {r.put(loss, '+.1f')}; of the "
        f"former, {r.put(icons, '+.1f')} points come from training on icons. On classes "
        "of which it saw no picture it has "
        f"{rate('unseen_classes', 'unseen_rendition', 'mean')} % of the renditions, where a twin that "
        "did see them (both without captions) has "
        f"{rate('unseen_classes', 'trained_rendition', 'mean')} %. Expected calibration error of the "
        f"first answer: {errors[0]} % for the classifier, {errors[1]} % for the twin.",
        "**Data card.** Each source belongs wholly to one part.",
        table(("part", "source", "photos", "renditions", "captioned", "classes", "licence"), card),
    )


ENCODERS = {"clip_rn50": "CLIP RN50 image encoder", "imagenet_resnet50": "ImageNet ResNet-50"}


def half_precision(r: Report) -> str:
    text = "### 3.1.5 FP16"
    parts = [
        _one_device(r, f"precision/precision_{device}.json")
        for device in ("cuda", "cpu")
        if r.files.has(f"precision/precision_{device}.json")
    ]
    if not parts:
        return join(text, "*Not measured yet: `python -m cvassign.precision`.*")
    if not r.files.has("precision/precision_cuda.json"):
        parts.append(
            "*No GPU measurement is stored: `python -m cvassign.precision --out "
            "results/precision` on one makes it.*"
        )
    return join(text, *parts)


def _one_device(r: Report, file: str) -> str:
    m = r.files.read(file)
    rows = []
    for encoder, words in ENCODERS.items():
        for p, entry in m["encoders"][encoder]["precisions"].items():
            if "error" in entry:
                continue
            at = ("encoders", encoder, "precisions", p)
            t, mem = (r.files.get(file, *at, k, 0) for k in ("time", "memory"))
            weights = [
                r.files.get(file, *at, "memory", 0, "weights", k) for k in mem.value["weights"]
            ]
            weights = Number(sum(w.value for w in weights), ("sum", *(w.origin for w in weights)))
            rows.append(
                (
                    f"{words}, {p}",
                    r.put(r.files.get(file, *at, "time", 0, "runs")),
                    f"{r.put(r.files.get(file, *at, 'time', 0, 'image_mean_ms'), '.2f')} ± "
                    f"{r.put(r.files.get(file, *at, 'time', 0, 'image_std_ms'), '.2f')}",
                    r.put(weights.times(MIB), ".1f"),
                    r.put(r.files.get(file, *at, "memory", 0, "peak").times(MIB), ".1f"),
                    r.put(r.files.get(file, *at, "output", "relative"), ".1e"),
                )
            )
    at = ("encoders", "clip_rn50", "precisions")
    full, half = (r.files.get(file, *at, p, "time", 0, "image_mean_ms") for p in ("fp32", "fp16"))
    faster = (full / half) if half.value < full.value else (half / full)
    batch = r.files.get(file, *at, "fp32", "time", 0, "batch_size")
    same = r.files.get(file, *at, "fp16", "output", "top1_same").times(100)
    moved = r.files.get(file, *at, "fp16", "output", "max_rank_change")
    return join(
        f"On {r.put(r.files.get(file, 'device'))}, batch {r.put(batch)}, with random weights: "
        "neither time nor memory depends on their values.",
        table(
            ("encoder", "runs", "ms an image", "weights, MiB", "peak, MiB", "output error"), rows
        ),
        f"In fp16 CLIP's encoder takes {r.put(faster, '.1f')} times "
        + (
            "as long: fp16 convolutions on this processor are not made for speed, as a GPU's tensor "
            "cores are."
            if half.value > full.value
            else "less time."
        )
        + " Weights and activations take half the bytes each, a convolution's workspace need not. "
        "*Output error* is the norm of the difference over that of the fp32 output: a product is "
        "rounded relative to its size, errors are random and mostly average out. The largest "
        f"output is the same in {r.put(same, '.0f')} % of the inputs, and of the five largest none "
        f"moves by more than {r.put(moved)} places.",
    )
