# LLM-assisted: prompts P6, P8, P15, see report.md
"""The runs of `cvassign.experiments` on a Ray cluster, for a sweep that outgrows one machine.

    python -m cvassign.study.ray run [--preset P] [--section S] [--model M] [--jobs J] [--out DIR]

A run is one task on a fraction of a GPU; Ray places the tasks and repeats that of a worker that
died. A task leaves its result in the same files as a local run and gives it back as well: the
machine that asked may share no disk with it.

Ray is an optional dependency: `pip install ray`. The cluster is the one that RAY_ADDRESS names,
else one of this machine's cores and GPUs that lives as long as the command."""

import os
import sys
from pathlib import Path

from cvassign import results as stored
from cvassign.experiments import all_runs, parser_of, said
from cvassign.files import replacing
from cvassign.results import Run


def train(run: Run, results: Path, device: str | None) -> dict[str, bytes]:
    """The task: trains one run where Ray has placed it, `results` is a folder there. Returns the
    files that it leaves, {path below `results`: bytes}. A repeated task finds its checkpoint if it
    is the same machine or a shared disk, else it starts anew."""
    print(f"{run.file_name}: starts in process {os.getpid()}", flush=True)
    stored.run_or_load(run, results, device=device, progress=False)
    beside = (path_of(run, results) for path_of in (stored.weights_path, stored.logits_path))
    files = *beside, results / run.file_name  # the last: who has it has all
    return {str(f.relative_to(results)): f.read_bytes() for f in files if f.exists()}


def resources(jobs: int, device: str | None, nodes: list[dict]) -> dict:
    """What one run asks of Ray so that `jobs` of them share a GPU, or a machine without one; device
    "cpu" leaves the GPUs alone. `nodes` are the machines' `Resources`, as `ray.nodes` has them."""
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if device != "cpu" and any(n.get("GPU") for n in nodes):
        return {"num_gpus": 1 / jobs, "num_cpus": 1}
    if device not in (None, "cpu"):
        raise ValueError(f"device {device!r} was asked for, but the cluster has no GPU")
    smallest = min((n["CPU"] for n in nodes if n.get("CPU")), default=1)
    return {"num_cpus": max(1, int(smallest) // jobs)}


def keep(files: dict[str, bytes], results: Path) -> None:
    """Writes what a task gave back, unless it left its files on this very disk."""
    for name, content in files.items():
        if not (results / name).exists():
            with replacing(results / name) as temporary:
                temporary.write_bytes(content)


def run_all(runs: list[Run], results: Path, jobs: int, device: str | None) -> int:
    """Trains those of `runs` that have no result yet on a Ray cluster, in their order; returns how
    many have none afterwards. `jobs` of them share one GPU, or one machine that has none.
    ImportError without ray, ValueError if jobs or device do not fit the cluster."""
    import ray

    results = results.resolve()
    # The package travels to every machine; where the data is, each machine has to say itself.
    package = {"py_modules": [str(stored.ROOT / "cvassign")]}
    with ray.init(runtime_env=package, include_dashboard=False, ignore_reinit_error=True):
        need = resources(jobs, device, [n["Resources"] for n in ray.nodes() if n["Alive"]])
        # A run whose worker died goes on from its last epoch; its own errors would come again.
        task = ray.remote(max_retries=3, **need)(train)
        todo = [run for run in runs if not (results / run.file_name).exists()]
        waiting = {task.remote(run, results, device): run for run in todo}
        while waiting:
            (reference, *_), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(reference)
            try:
                keep(ray.get(reference), results)
                print(said(stored.load(run, results)), flush=True)
            except (ray.exceptions.RayError, stored.ResultError) as error:
                busy = isinstance(getattr(error, "cause", None), stored.Busy)
                why = "another process trains it" if busy else f"failed: {error}"
                print(f"{run.file_name}: {why}", file=sys.stderr, flush=True)
    return len(runs) - len(stored.load_all(runs, results))


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("cvassign.study.ray", __doc__, "run")
    given = parser.parse_args(arguments)
    runs = all_runs(given.preset, given.section, given.model)
    try:
        return int(run_all(runs, given.out, given.jobs, given.device) > 0)
    except ValueError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.exit(1, f"{error}; the package ray is optional: pip install ray\n")


if __name__ == "__main__":
    sys.exit(main())
