# LLM-assisted: prompts P6, P15, see report.md
"""Training as it is usually written: what `cvassign.bench` measures this package against.

    python -P usual_loop.py TASK

A program of its own that imports nothing of this package, so that it runs as its user would run it,
with the settings that PyTorch comes with. TASK is a file by torch.save, see `steps`. For each line
of its input, a number of steps, it prints the seconds that they took.
"""

import sys
import time
from collections.abc import Iterator

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision import transforms
from torchvision.datasets import CIFAR10


def steps(
    shape: dict,
    images: Tensor,
    labels: Tensor,
    moments: tuple,
    batch_size: int,
    device: str,
    workers: int,
) -> Iterator[Tensor]:
    """Trains timm's Vision Transformer of that shape with AdamW on images (n, 3, S, S) uint8; each
    `next` is one step and gives its loss.

    torchvision's CIFAR10 keeps all pixels and makes a PIL image of one when asked. Its constructor
    wants the official archives, whichever way our pixels came; so it is passed over, and the pixels
    are put where it would have put them.
    """
    dataset = CIFAR10.__new__(CIFAR10)
    dataset.data = images.permute(0, 2, 3, 1).numpy()  # (n, S, S, 3) uint8
    dataset.targets = labels.tolist()
    dataset.target_transform = None
    random = [
        transforms.RandomCrop(shape["img_size"], padding=4),
        transforms.RandomHorizontalFlip(),
    ]
    fixed = [transforms.ToTensor(), transforms.Normalize(*moments)]
    dataset.transform = transforms.Compose(random + fixed)
    options = dict(shuffle=True, drop_last=True, pin_memory=device.startswith("cuda"))
    options |= dict(num_workers=workers, persistent_workers=workers > 0)
    loader = torch.utils.data.DataLoader(dataset, batch_size, **options)
    model = VisionTransformer(**shape).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    loss_function = nn.CrossEntropyLoss()
    model.train()
    running_loss = 0.0
    while True:
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = loss_function(model(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            yield loss.detach()


def main() -> None:
    task = torch.load(sys.argv[1])
    training = steps(**task)
    # PyTorch's own default: the batches that each worker makes while others are measured.
    queued = 2 * task["workers"]
    for line in sys.stdin:
        for _ in range(queued + 1):
            next(training)
        started = time.perf_counter()
        for _ in range(int(line)):
            next(training)  # ends with reading the loss, which waits for the device
        print(time.perf_counter() - started, flush=True)
    training.close()  # ends the workers


if __name__ == "__main__":
    main()
