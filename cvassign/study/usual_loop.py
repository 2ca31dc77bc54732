# LLM-assisted: prompts P6, P15, see report.md
"""Training as it is usually written: what `cvassign.study.bench` measures this package against.

    python -P usual_loop.py TASK

A program of its own that imports nothing of this package, so that it runs as its user would run it,
with the settings that PyTorch comes with. TASK is a file by torch.save, see `steps`. For each line
of its input, a number of steps, it prints the seconds that they took."""

import sys
import time
from collections.abc import Iterator

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms
from torchvision.datasets import CIFAR10


def steps(
    shape: dict, images: Tensor, labels: Tensor, moments, batch_size: int, device: str, workers: int
) -> Iterator[float]:
    """Trains timm's Vision Transformer of that shape with AdamW on images (n, 3, S, S) uint8; each
    `next` is one step and gives its loss.

    torchvision's CIFAR10 keeps all pixels and makes a PIL image of one when asked. Its constructor
    wants the official archives, so it is passed over, and the pixels are put where it puts them."""
    dataset = CIFAR10.__new__(CIFAR10)
    dataset.data = images.permute(0, 2, 3, 1).numpy()  # (n, S, S, 3) uint8
    dataset.targets = labels.tolist()
    dataset.target_transform = None
    random = transforms.RandomCrop(shape["img_size"], padding=4), transforms.RandomHorizontalFlip()
    fixed = transforms.ToTensor(), transforms.Normalize(*moments)
    dataset.transform = transforms.Compose([*random, *fixed])
    options = dict(num_workers=workers, persistent_workers=workers > 0)
    options |= dict(shuffle=True, drop_last=True, pin_memory=device.startswith("cuda"))
    loader = torch.utils.data.DataLoader(dataset, batch_size, **options)
    model = VisionTransformer(**shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    while True:
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            yield loss.item()  # which waits for the device


def main() -> None:
    task = torch.load(sys.argv[1])
    training = steps(**task)
    for line in sys.stdin:
        # Two batches (PyTorch's default) are what each worker made while others were measured.
        for _ in range(2 * task["workers"] + 1):
            next(training)
        started = time.perf_counter()
        for _ in range(int(line)):
            next(training)
        print(time.perf_counter() - started, flush=True)
    training.close()  # ends the workers


if __name__ == "__main__":
    main()
