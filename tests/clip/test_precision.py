# LLM-assisted: prompts P3, P15, see report.md
"""Time, outputs and memory are measured right on networks small enough to count by hand."""

import json
import time

import open_clip
import pytest
import torch
from torch import nn

from cvassign.clip import precision
from cvassign.results import RESULTS

torch.set_num_threads(1)
BATCH = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
N_CONV, N_BN, N_LINEAR = 3 * 4 * 9, 4 * 4, 256 * 5 + 5  # BatchNorm: weight, bias, mean, variance


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(4 * 8 * 8, 5)).eval()


def test_conversion_counts_to_the_byte(encoder):
    found = {p: precision.weight_bytes(precision.convert(encoder, p)) for p in precision.PRECISIONS}
    full = {"float32": 4 * (N_CONV + N_BN + N_LINEAR), "int64": 8}
    assert found["fp32"] == found["tf32"] == precision.weight_bytes(encoder) == full
    low, rest = 2 * (N_CONV + N_LINEAR), {"float32": 4 * N_BN, "int64": 8}
    assert found["fp16"] == {"float16": low, **rest} and found["bf16"] == {"bfloat16": low, **rest}
    with pytest.raises(ValueError, match="fp32, tf32.*got 'int8'"):
        precision.convert(encoder, "int8")


def test_fp16_is_open_clips_fp16(random_clip):
    ours = precision.convert(random_clip.visual, "fp16")
    theirs = open_clip.create_model("RN50", precision="fp16", pretrained_image=False).visual
    types = {k: v.dtype for k, v in theirs.state_dict().items()}
    assert {k: v.dtype for k, v in ours.state_dict().items()} == types
    assert types["bn1.weight"] == torch.float32 and types["conv1.weight"] == torch.float16


def test_foreign_weights_are_refused_in_one_line(random_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "rn50", lambda: random_clip)  # what they are not loaded into
    torch.save({"visual.foreign": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(
        ValueError, match="x.pt: expected CLIP RN50 or its .*, got .*Missing key.*$"
    ):
        precision.image_encoder(tmp_path / "x.pt")


def test_numerics_restores_the_switch():
    before = torch.backends.cudnn.conv.fp32_precision
    with pytest.raises(KeyError), precision.numerics("tf32"):
        assert torch.backends.cudnn.conv.fp32_precision == "tf32"
        raise KeyError
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_time_is_wall_clock():
    def sleeper(x):
        time.sleep(0.01)

    t = precision.time_forward(sleeper, BATCH, runs=5, warmup=1)
    assert t["runs"] == 5 and 10 <= t["mean_ms"] < 30
    assert t["mean_ms"] == pytest.approx(sum(t["runs_ms"]) / 5, rel=1e-3)
    assert precision.time_forward(sleeper, BATCH, limit_s=0.05)["runs"] < 10
    with pytest.raises(ValueError, match="at least 2, got 1"):
        precision.time_forward(sleeper, BATCH, 1)


def test_without_fp32_the_others_say_so():
    class Half(nn.Linear):  # as on a device that runs out of memory in single precision
        def forward(self, x):
            if self.weight.dtype == torch.float32:
                raise RuntimeError("out of memory")
            return super().forward(x)

    out = precision.measure(Half(4, 4), torch.ones(2, 4), [1], runs=2)
    assert out["fp32"]["error"] == "RuntimeError: out of memory"
    assert out["bf16"]["error"].endswith("nothing to compare with: fp32 did not run")


def test_an_error_leaves_no_encoder_on_the_device(encoder, monkeypatch):
    """Else the next precision is measured beside it."""
    moved = []

    def fails(*args):
        moved.clear()  # what was moved before the error does not count
        raise RuntimeError("out of memory")

    monkeypatch.setattr(precision, "error_by_layer", fails)
    monkeypatch.setattr(encoder, "cpu", lambda: moved.append("cpu"))
    out = precision.measure(encoder, BATCH, [1], runs=2)
    assert "out of memory" in out["bf16"]["error"] and moved == ["cpu"]


def test_compare():
    a = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    b = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.5]])
    c = precision.compare(a, b, top=2)
    assert (c["max_abs"], c["max_rank_change"]) == (1, 1)
    assert c["relative"] == pytest.approx((2.25 / 28) ** 0.5)


def test_error_by_layer_sees_rounding_and_order(encoder):
    layers = precision.error_by_layer(encoder, precision.convert(encoder, "bf16"), BATCH)
    assert [e["layer"] for e in layers] == ["0", "1", "2", "3", "4"]
    assert all(2**-12 < e["relative"] < 2**-6 for e in layers)  # bfloat16 rounds at 2^-9
    same = precision.error_by_layer(encoder, precision.convert(encoder, "fp32"), BATCH)
    assert {e["relative"] for e in same} == {0.0}


def test_timeline_categories():
    class Known(nn.Module):  # allocates 4000 bytes that stay and 8000 that do not
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            kept = torch.ones(1000)
            torch.ones(1000).neg().sum()
            return kept + kept

    m = precision.memory(Known(), BATCH)
    line = m["timeline"]
    assert line["weights"] == 12 and m["weights"] == {"float32": 12}
    assert line["input"] == BATCH.numel() * 4
    assert line["activations"][-1] == 4000  # the output alone is alive at the end
    assert m["activation_peak"] == 12_000  # kept, a temporary and its negative
    assert m["peak"] == 12 + line["input"] + 12_000


def test_command_writes_one_json(encoder, tmp_path, monkeypatch):
    small = nn.Sequential(nn.AdaptiveAvgPool2d(8), encoder)
    monkeypatch.setattr(precision, "image_encoder", lambda _: (small, "random"))
    command = "--device cpu --batch-sizes 1,2 --runs 4 --out".split()
    path = precision.main([*command, str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["precision_cpu.json"]
    fp32, bf16 = (json.loads(path.read_bytes())["precisions"][p] for p in ("fp32", "bf16"))
    assert [t["batch_size"] for t in fp32["time"]] == [1, 2]
    assert "timeline" in fp32["memory"][1] and "timeline" not in fp32["memory"][0]
    assert fp32["output"]["max_abs"] == 0 < bf16["output"]["relative"] < 0.02


def test_memory_table_adds_up():
    stored = json.loads((RESULTS / "precision" / "precision_cuda.json").read_text(encoding="utf-8"))
    for m in precision.memory_table(stored["precisions"]).values():
        mib = {k: float(v) for k, v in m.items()}
        parts = ("weights", "input", "activations, at the peak of both")
        total = sum(mib[k] for k in (*parts, "workspace, at the peak of both"))
        assert total == pytest.approx(mib["sum, by the profiler"], abs=0.2)
        extra = mib["of these neither weights nor input"]
        assert total + extra == pytest.approx(mib["peak, by the allocator"], abs=0.3)
        assert mib["the same for one image"] < mib["peak, by the allocator"] < mib["reserved"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_counters_agree(encoder):
    m = precision.memory(encoder.cuda(), BATCH.cuda())
    assert m["peak_allocated"] >= m["allocated_before"] >= sum(m["weights"].values())
    assert m["peak_reserved"] >= m["peak_allocated"] >= sum(m["weights"].values()) + m["input"]
    assert "MiB" in m["nvidia_smi"]
