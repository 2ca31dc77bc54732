# LLM-assisted: prompts P9, P12, see report.md
"""CLIP RN50 with random weights, the same as a file in OpenAI's form, and what was downloaded."""

import os
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def random_clip():
    from cvassign.clip import zero_shot  # seconds, which the other tests need not wait

    torch.manual_seed(0)
    return zero_shot.rn50()


@pytest.fixture(scope="session")
def openai_archive(random_clip, tmp_path_factory):
    """TorchScript, with three settings beside the tensors."""

    class Archive(nn.Module):
        def __init__(self):
            super().__init__()
            for name, child in random_clip.named_children():
                self.add_module(name, child)
            for name, p in random_clip.named_parameters(recurse=False):
                self.register_parameter(name, p)
            settings = {"input_resolution": 224, "context_length": 77, "vocab_size": 49408}
            for name, value in settings.items():
                self.register_buffer(name, torch.tensor(value))

        def forward(self, x):
            return self.visual(x)

    file = tmp_path_factory.mktemp("clip") / "RN50.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenAI's form is an old one
        torch.jit.save(torch.jit.trace(Archive(), torch.zeros(1, 3, 224, 224)), file)
    return file


@pytest.fixture
def at_hand():
    """Skips a test of foreign files where they have not been downloaded: no test fetches them."""
    from cvassign import assets

    def check(*names: str) -> None:
        folders = [f for f in (os.environ.get("CVASSIGN_DATA"), assets.cache_dir()) if f]
        for name in names:
            file = assets.ASSETS[name].file
            if not any((Path(f) / file).is_file() for f in folders):
                pytest.skip(f"{file} is not on this machine: python -m cvassign.assets get {name}")

    return check
