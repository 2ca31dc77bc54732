# LLM-assisted: prompts P1, P3, P9, P12, P15, see report.md
"""CLIP RN50 with random weights, the same as a file in OpenAI's form, and what downloads meet."""

import copy
import os
import sys
import threading
import time
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cvassign import assets

for variable in ("CVASSIGN_DATA", "CVASSIGN_CACHE", "CVASSIGN_CLIP"):
    if path := assets.named(variable):  # tests start programs in other folders
        os.environ[variable] = str(path)


@pytest.fixture(scope="session")
def random_clip():
    from cvassign.clip import zero_shot  # seconds, which the other tests need not wait

    torch.manual_seed(0)
    return zero_shot.rn50()


@pytest.fixture(scope="session")
def openai_archive(random_clip, tmp_path_factory):
    """TorchScript, with three settings beside the tensors."""
    archive, file = copy.deepcopy(random_clip), tmp_path_factory.mktemp("clip") / "RN50.pt"
    del archive.attn_mask  # which open_clip keeps out of files
    for name, value in dict(input_resolution=224, context_length=77, vocab_size=49408).items():
        vars(archive).pop(name, None)
        archive.register_buffer(name, torch.tensor(value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenAI's form is an old one
        example = {"encode_image": torch.zeros(1, 3, 224, 224)}
        torch.jit.save(torch.jit.trace_module(archive, example, check_trace=False), file)
    return file


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.path)  # of a proxy the whole address
        time.sleep(server.wait)
        if server.lost:
            return self.send_error(404)
        content = server.files.get(self.path, server.content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: 300_000 if len(server.asked) <= server.cut else None])

    do_CONNECT = do_GET  # what a proxy is asked for an https address

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Serves `files`, and `content` under every other name; its faults are attributes, too."""
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))  # its patience
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.address = f"http://127.0.0.1:{server.server_address[1]}"
        server.files = {}
        server.content = np.random.default_rng(0).bytes(1_000_003)  # several reads, no round number
        server.asked, server.cut = [], 0  # so many answers break off in the middle
        server.lost, server.wait = False, 0.0  # 404 for everything; seconds before each answer
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CVASSIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CVASSIGN_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts a Python program under a name onto a PATH that has nothing else."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(name: str, program: str) -> None:
        file = tmp_path / "bin" / name
        file.write_bytes(f"#!{sys.executable}\nimport pathlib, shutil, sys\n{program}".encode())
        file.chmod(0o755)

    return put


@pytest.fixture
def at_hand():
    """Skips a test of foreign files where they have not been downloaded: no test fetches them."""

    def check(name: str) -> None:
        file = assets.ASSETS[name].file
        folders = filter(None, (assets.named("CVASSIGN_DATA"), assets.cache_home()))
        if not any((folder / file).is_file() for folder in folders):
            pytest.skip(f"{file} is not on this machine: python -m cvassign.assets get {name}")

    return check
