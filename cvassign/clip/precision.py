# LLM-assisted: prompts P3, P9, P10, P15, P17, see report.md
"""Half against single precision for an image encoder: time, outputs and memory of a forward pass.

    python -m cvassign.clip.precision --out results/precision [--device D] [--batch-sizes 1,16,64]

writes `precision_<device>.json` for CLIP's RN50 image encoder. Every function takes any `nn.Module`
and an example batch (B, 3, H, W). Memory is told by category, as in "Understanding GPU Memory 1"
(PyTorch blog, 2023)."""

import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from pathlib import Path
from statistics import mean, stdev

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cvassign.clip.zero_shot import DTYPES, PRECISIONS, convert, load, rn50
from cvassign.command import Parser
from cvassign.device import describe, pick_device
from cvassign.files import replacing


@contextlib.contextmanager
def numerics(precision: str):
    """TensorFloat-32 on for "tf32", off for all others; restored on the way out."""
    conv, matmul = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, matmul.fp32_precision
    try:
        conv.fp32_precision = matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        conv.fp32_precision, matmul.fp32_precision = before


@torch.inference_mode()
def time_forward(
    encoder: nn.Module, batch: Tensor, runs: int = 100, warmup: int = 10, limit_s: float = 60.0
) -> dict:
    """Wall-clock time of a forward pass, in milliseconds per batch.

    A GPU works asynchronously: the clock may only be read after `synchronize`. After `limit_s`
    seconds no further run starts, once three are timed: half precision on a CPU without
    instructions for it is emulated, forty times slower."""
    if runs < 2:
        raise ValueError(f"runs must be at least 2, got {runs}")
    wait = torch.cuda.synchronize if batch.is_cuda else lambda: None
    started = time.perf_counter()
    for done in range(warmup):  # cuDNN picks its algorithms, the allocator fills its pool
        if done == 0 or time.perf_counter() - started < 0.1 * limit_s:
            encoder(batch)
    ms, started = [], time.perf_counter()
    while len(ms) < runs and (len(ms) < 3 or time.perf_counter() - started < limit_s):
        wait()
        start = time.perf_counter()
        encoder(batch)
        wait()
        ms.append(1000 * (time.perf_counter() - start))
    found = {"batch_size": len(batch), "runs": len(ms), "mean_ms": mean(ms), "std_ms": stdev(ms)}
    return found | {"runs_ms": [float(f"{t:.5g}") for t in ms]}


def replayed(encoder: nn.Module, batch: Tensor) -> Callable[[Tensor], None]:
    """A forward pass on a GPU, recorded once as a CUDA graph: a single call starts all kernels."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        encoder(batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        encoder(batch)
    return lambda _batch: graph.replay()


def compare(reference: Tensor, other: Tensor, top: int = 5) -> dict:
    """How far vectors or logits `other` (B, K) are from `reference` (B, K): `max_abs`, `relative`
    (L2 norm of the difference over the reference's, over the batch), `max_rank_change` (of the
    reference's `top` entries of an image)."""
    a, b = reference.detach().double().cpu(), other.detach().double().cpu()
    rank_a, rank_b = (x.argsort(dim=-1, descending=True, stable=True) for x in (a, b))
    position = rank_b.argsort(-1).gather(-1, rank_a[:, :top])  # where the top entries went (B, k)
    return {
        "max_abs": (a - b).abs().max().item(),
        "relative": ((a - b).norm() / a.norm()).item(),
        "max_rank_change": int((position - torch.arange(position.shape[1])).abs().max()),
    }


@torch.inference_mode()
def error_by_layer(reference: nn.Module, other: nn.Module, batch: Tensor) -> list[dict]:
    """Where in the network the difference grows: two encoders on one batch (B, 3, H, W), each in
    its own type. For each child and each block of a stage, in the order of the forward pass, one
    {"layer", "relative": L2 norm of the difference over the reference's, "max_value": largest
    magnitude in the reference}; fp16 ends at 65,504."""

    def keep(outputs: dict, name: str, _module, _inputs, out: Tensor) -> None:
        outputs[name] = out.clone()  # the in-place ReLU after it would overwrite the tensor

    a, b = {}, {}
    with numerics("fp32"), contextlib.ExitStack() as hooks:
        for encoder, outputs in ((reference, a), (other, b)):
            for name, module in encoder.named_modules():
                if name and name.count(".") == name.startswith("layer"):
                    hook = module.register_forward_hook(partial(keep, outputs, name))
                    hooks.enter_context(hook)
            encoder(batch.to(next(encoder.parameters()).dtype))
    entries = []
    for name, out in a.items():
        relative = ((out.float() - b[name].float()).norm() / out.norm()).item()
        entries.append({"layer": name, "relative": relative, "max_value": out.abs().max().item()})
    return entries


def weight_bytes(encoder: nn.Module) -> dict[str, int]:
    """Bytes of parameters and buffers by type, for example {"float16": …, "float32": …}."""
    total = Counter()
    for t in [*encoder.parameters(), *encoder.buffers()]:
        total[str(t.dtype).removeprefix("torch.")] += t.nbytes
    return dict(total)


@torch.inference_mode()
def memory(encoder: nn.Module, batch: Tensor) -> dict:
    """Memory of one forward pass in bytes: by `timeline` each category's own maximum
    (`activation_peak`, `workspace_peak`) and that of their sum with weights and input (`peak`); on
    a GPU also the allocator's own counters, `nvidia_smi` as it prints it, and what cuBLAS holds."""
    out = {"batch_size": len(batch), "weights": weight_bytes(encoder), "input": batch.nbytes}
    if batch.is_cuda:
        encoder(batch)  # the libraries' handles and workspaces exist before the measurement
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        out["allocated_before"] = torch.cuda.memory_allocated()
    output = encoder(batch)
    if batch.is_cuda:
        torch.cuda.synchronize()
        out["peak_allocated"] = torch.cuda.max_memory_allocated()
        out["peak_reserved"] = torch.cuda.max_memory_reserved()
        out["nvidia_smi"] = subprocess.getoutput("nvidia-smi")
        held = torch.cuda.memory_allocated()
        torch._C._cuda_clearCublasWorkspaces()  # it keeps one for each stream, and makes it anew
        out["cublas_workspace"] = held - torch.cuda.memory_allocated()
    line = timeline(encoder, batch)
    moving = line["activations"], line["workspace"]
    out |= {"output": output.nbytes, "timeline": line}
    out |= {"activation_peak": max(moving[0]), "workspace_peak": max(moving[1])}
    out |= {k: line.pop(k) for k in ("workspace_of", "kernels", "kernels_ms")}
    return out | {"peak": line["weights"] + line["input"] + max(map(sum, zip(*moving)))}


@torch.inference_mode()
def timeline(encoder: nn.Module, batch: Tensor) -> dict:
    """Memory during one forward pass by category, from the events of `torch.profiler`.

    What an operator allocates and frees before it returns was *workspace* (cuDNN's buffers for a
    convolution); what outlives it is an *activation*. Weights and input exist before the pass.
    Buffers that a CPU library allocates for itself, past PyTorch's allocator, are not seen.
    Returned are bytes, of `activations` and `workspace` one value for each of the times `ms`; each
    operator's largest workspace; of a GPU's kernels the number and the sum of their durations."""
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * batch.is_cuda
    encoder(batch)
    with profile(activities=activities, profile_memory=True) as prof:
        output = encoder(batch)
        if batch.is_cuda:
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        prof.export_chrome_trace(str(file))
        events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    del output  # alive until here: its memory is an activation to the end

    calls = [e for e in events if e.get("cat") == "cpu_op"]
    operators = sorted((e["ts"], e["ts"] + e["dur"], e["name"]) for e in calls)
    kernels = [e["dur"] for e in events if e.get("cat") == "kernel"]
    kind = int(batch.is_cuda)  # the profiler's numbers of the device types
    args = [(e["ts"], e["args"]) for e in events if e.get("name") == "[memory]"]
    of_kind = ((ts, a["Bytes"], a["Addr"]) for ts, a in args if a.get("Device Type") == kind)
    changes = sorted(of_kind, key=lambda change: change[0])

    largest = Counter()
    category, alive = {}, {}  # of changes; of addresses: the change that allocated them
    for i, (ts, size, address) in enumerate(changes):
        if size > 0:
            alive[address], category[i] = i, "activations"
        elif address in alive:  # else it was allocated before the profiler started
            born = alive.pop(address)
            inside = [op for a, b, op in operators if a <= changes[born][0] and ts <= b]
            category[born] = category[i] = "workspace" if inside else "activations"
            if inside:  # the last to begin is the innermost
                largest[inside[-1]] = max(largest[inside[-1]], changes[born][1])
    out = {"kernels": len(kernels), "kernels_ms": sum(kernels) / 1000, "workspace_of": largest}
    out |= {"weights": sum(weight_bytes(encoder).values()), "input": batch.nbytes}
    out["ms"] = [0.0] + [round((changes[i][0] - changes[0][0]) / 1000, 3) for i in category]
    for name in ("activations", "workspace"):
        sizes = (changes[i][1] * (found == name) for i, found in category.items())
        out[name] = list(accumulate(sizes, initial=0))
    return out


def memory_table(precisions: dict[str, dict]) -> dict[str, dict[str, str]]:
    """{precision: {quantity: MiB}} of `measure` on a GPU, at the largest batch size."""
    table = {}
    for name, found in precisions.items():
        one, *_, m = found["memory"]
        line, before = m["timeline"], m["allocated_before"]
        activations, workspace = max(zip(line["activations"], line["workspace"]), key=sum)
        smi = 2**20 * int(re.findall(r"(\d+)MiB", m["nvidia_smi"])[-1])
        row = {
            "weights": line["weights"],
            "input": line["input"],
            "activations, at the peak of both": activations,
            "workspace, at the peak of both": workspace,
            "activations, own peak": m["activation_peak"],
            "workspace, own peak": m["workspace_peak"],
            "sum, by the profiler": m["peak"],
            "allocated before the pass": before,
            "of these neither weights nor input": before - line["weights"] - line["input"],
            "of these cuBLAS's workspaces": m["cublas_workspace"],
            "peak, by the allocator": m["peak_allocated"],
            "the same without cuBLAS's workspaces": m["peak_allocated"] - m["cublas_workspace"],
            "without them, one image": one["peak_allocated"] - one["cublas_workspace"],
            "reserved": m["peak_reserved"],
            "this process, by nvidia-smi": smi,
            "nvidia-smi − reserved": smi - m["peak_reserved"],
        }
        table[name] = {k: f"{n / 2**20:.1f}" for k, n in row.items()}
    return table


def measure(
    encoder: nn.Module, batch: Tensor, batch_sizes: list[int], runs: int = 100, limit_s: float = 60
) -> dict:
    """All measurements of an encoder in fp32 on the CPU, as the device's memory is to hold the copy
    that is measured alone; `batch` (B, 3, H, W), fp32, is repeated to each batch size.

    Returns:
        {precision: {"time": [one `time_forward` a batch size], "memory": [one `memory` a batch
        size; the timeline only for the last], "output": `compare` to fp32, "layers":
        `error_by_layer`}} or {precision: {"error": text}} where the device cannot run it."""
    out, reference = {}, None
    for precision in PRECISIONS if batch.is_cuda else ("fp32", *DTYPES):  # TF32 is a GPU's
        entry = out[precision] = {"time": [], "memory": []}
        try:
            model = convert(encoder, precision).to(batch.device)
            dtype = DTYPES.get(precision, torch.float32)
            with numerics(precision), torch.inference_mode():
                result = model(batch.to(dtype))
            reference = result if precision == "fp32" else reference
            if reference is None:
                raise RuntimeError("nothing to compare with: fp32 did not run")
            entry["output"] = compare(reference, result)
            for n in batch_sizes:
                images = batch[torch.arange(n) % len(batch)].to(dtype)
                with numerics(precision):
                    entry["time"].append(t := time_forward(model, images, runs, limit_s=limit_s))
                    entry["memory"].append(m := memory(model, images))
                    if batch.is_cuda:  # last: a graph has memory of its own
                        graph = time_forward(replayed(model, images), images, runs, limit_s=limit_s)
                        t |= {f"graph_{k}": graph[k] for k in ("mean_ms", "std_ms")}
                if n != batch_sizes[-1]:
                    del m["timeline"]
                took, peak = f"{t['mean_ms']:9.3f} ± {t['std_ms']:.3f} ms", m["peak"] / 2**20
                print(f"{precision:>10}  batch {n:4d}  {took}  peak {peak:8.1f} MiB", flush=True)
            if precision in DTYPES:
                entry["layers"] = error_by_layer(encoder.to(batch.device).eval(), model, batch)
        except (RuntimeError, NotImplementedError) as error:  # out of memory included
            entry["error"] = f"{type(error).__name__}: {error}"[:500]
            print(f"{precision:>10}  {entry['error']}", flush=True)
        finally:
            encoder.cpu()  # also after an error, else the next precision has less memory
        model = images = None
        torch.cuda.empty_cache()  # does nothing without a GPU
    return out


def image_encoder(file: str | None) -> tuple[nn.Module, str]:
    """CLIP's RN50 image encoder, at random or of a file that `load` takes, and words for which."""
    if not file:
        torch.manual_seed(0)
        return rn50().visual, "random initialisation, seed 0"
    encoder = load(file)
    return encoder.model.visual.to(memory_format=torch.contiguous_format), encoder.name


def main(arguments: list[str] | None = None) -> Path:
    """Measures CLIP's image encoder on one device and writes the JSON file."""
    parser = Parser("cvassign.clip.precision", __doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the JSON file")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-sizes", default="1,16,64", help="by commas, ascending")
    parser.add_argument("--runs", type=int, default=100, help="timed runs, at least 2")
    parser.add_argument("--limit", type=float, default=60, help="seconds of timing a batch size")
    parser.add_argument("--clip-weights", help="OpenAI's RN50.pt or a state dict of it")
    args = parser.parse_args(arguments)
    try:
        device = pick_device(args.device)
        if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", args.batch_sizes) or args.runs < 2:
            got = f"{args.batch_sizes!r} and {args.runs}"
            raise ValueError(f"expected batch sizes such as 1,16,64 and 2 runs or more, got {got}")
        sizes = [int(n) for n in args.batch_sizes.split(",")]
        model, words = image_encoder(args.clip_weights)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    # Pictures are normalised to mean 0 and deviation 1 a channel; so is this noise, smoothed
    # because convolution weights answer to smooth patches, not to white noise.
    noise = torch.randn(5, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    batch = nn.functional.interpolate(noise, size=224, mode="bicubic").to(device)
    out = {"format": 2, **describe(device), "weights": words}
    out["input"] = "five smooth noise images 224 x 224, repeated to the batch size"
    print(f"weights: {words}, on {out['device']}", flush=True)
    if batch.is_cuda:  # what a process takes before it has a network
        out["nvidia_smi"] = subprocess.getoutput("nvidia-smi")
    out["precisions"] = measure(model, batch, sizes, args.runs, args.limit)
    path = args.out / f"precision_{device.type}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(out) + "\n", encoding="utf-8")
    print(path)
    return path


if __name__ == "__main__":
    main()
