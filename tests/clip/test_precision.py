# LLM-assisted: prompts P3, P15, see report.md
"""Time, outputs and memory are measured right on networks small enough to count by hand."""

import json
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

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


def test_numerics_restores_the_switches():
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    for name, expected in (("tf32", "tf32"), ("bf16", "ieee")):
        with pytest.raises(KeyError), precision.numerics(name):
            assert conv.fp32_precision == matmul.fp32_precision == expected
            raise KeyError
        assert (conv.fp32_precision, matmul.fp32_precision) == before


def test_time_is_wall_clock():
    t = precision.time_forward(lambda _: time.sleep(0.01), BATCH, runs=5, warmup=1)
    assert t["runs"] == 5 and 10 <= t["mean_ms"] < 30
    assert t["mean_ms"] == pytest.approx(sum(t["runs_ms"]) / 5, rel=1e-3)
    assert precision.time_forward(lambda _: time.sleep(0.01), BATCH, limit_s=0.05)["runs"] < 10
    with pytest.raises(ValueError, match="at least 2, got 1"):
        precision.time_forward(None, BATCH, 1)


def test_without_fp32_the_others_say_so_and_no_error_leaves_the_encoder_on_the_device():
    class Half(nn.Linear):  # as on a device that runs out of memory in single precision
        moved = 0

        def forward(self, x):
            if self.weight.dtype == torch.float32:
                raise RuntimeError("out of memory")
            return super().forward(x)

        def cpu(self):
            self.moved += 1

    out = precision.measure(encoder := Half(4, 4), torch.ones(2, 4), [1], runs=2)
    assert out["fp32"]["error"] == "RuntimeError: out of memory"
    assert out["bf16"]["error"].endswith("nothing to compare with: fp32 did not run")
    assert encoder.moved == 3  # after each, else the next would be measured beside it


def test_compare():
    a = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    b = torch.tensor([[3.0, 1.0, 2.0], [1.0, 2.0, 3.5]])
    expected = {"max_abs": 1, "relative": (2.25 / 28) ** 0.5, "max_rank_change": 1}
    assert precision.compare(a, b, top=2) == pytest.approx(expected)


def test_error_by_layer_sees_rounding_and_order(encoder):
    layers = precision.error_by_layer(encoder, precision.convert(encoder, "bf16"), BATCH)
    assert [e["layer"] for e in layers] == ["0", "1", "2", "3", "4"]
    assert all(2**-12 < e["relative"] < 2**-6 for e in layers)  # bfloat16 rounds at 2^-9
    same = precision.error_by_layer(encoder, precision.convert(encoder, "fp32"), BATCH)
    assert {e["relative"] for e in same} == {0.0}


def test_timeline_categories():
    class Known(nn.Linear):  # allocates 4000 bytes that stay and 8000 that do not
        def forward(self, x):
            kept = torch.ones(1000)
            F.pairwise_distance(kept[None, :500], kept[None, :500])  # 4000 more, while it computes
            torch.ones(1000).neg().sum()
            return kept + kept

    m = precision.memory(Known(3, 1, bias=False), BATCH)
    line = m["timeline"]
    assert line["weights"] == 12 and m["weights"] == {"float32": 12}
    assert line["input"] == BATCH.numel() * 4
    assert line["activations"][-1] == 4000  # the output alone is alive at the end
    assert m["activation_peak"] == 12_000  # kept, a temporary and its negative
    assert m["peak"] == 12 + line["input"] + 12_000
    assert m["workspace_peak"] == pytest.approx(4000, abs=100) and line["workspace"][-1] == 0
    assert m["workspace_of"]["aten::pairwise_distance"] == 2000 and m["kernels"] == 0


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
        both = mib["activations, at the peak of both"] + mib["workspace, at the peak of both"]
        total = mib["weights"] + mib["input"] + both
        assert total == pytest.approx(mib["sum, by the profiler"], abs=0.2)
        extra = mib["of these neither weights nor input"]
        assert 0 < mib["of these cuBLAS's workspaces"] < extra
        assert total + extra == pytest.approx(mib["peak, by the allocator"], rel=2e-3)
        assert mib["peak, by the allocator"] < mib["reserved"]
        assert mib["without them, one image"] < mib["the same without cuBLAS's workspaces"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_counters_agree(encoder):
    m = precision.memory(encoder.cuda(), BATCH.cuda())
    assert m["peak_allocated"] >= m["allocated_before"] >= sum(m["weights"].values())
    assert m["peak_reserved"] >= m["peak_allocated"] >= sum(m["weights"].values()) + m["input"]
    assert "MiB" in m["nvidia_smi"]
