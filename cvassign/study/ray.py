# LLM-assisted: prompts P6, P8, P15, see report.md
"""The runs of `cvassign.experiments` on a Ray cluster, for a sweep that outgrows one machine.

    python -m cvassign.study.ray run [--preset P] [--section S] [--model M] [--jobs J] [--out DIR]

A run is one task on a fraction of a GPU; Ray places the tasks and repeats that of a worker that
died. A task leaves its result in the same files as a local run and gives it back as well: the
machine that asked may share no disk with it.

Ray is an optional dependency: `pip install ray`. The cluster is the one that RAY_ADDRESS names,
else one of this machine's cores and GPUs that lives as long as the command.
"""

import os
import sys
from pathlib import Path

from cvassign import results as stored
from cvassign.experiments import all_runs, parser_of, said
from cvassign.files import replacing
from cvassign.results import Result, Run


def train(run: Run, results: str, state: str, device: str | None) -> tuple[Result, dict]:
    """The task: trains one run where Ray has placed it; its result, and the files of weights and
    logits that it leaves, {path below `results`: bytes}. `results` and `state` are folders there: a
    repeated task finds its checkpoint if it is the same machine or a shared disk, else it starts
    anew."""
    print(f"{run.file_name}: starts in process {os.getpid()}", flush=True)
    result = stored.run_or_load(run, Path(results), Path(state), device, progress=False)
    files = [path_of(run, Path(results)) for path_of in (stored.weights_path, stored.logits_path)]
    return result, {str(f.relative_to(results)): f.read_bytes() for f in files if f.exists()}


def resources(jobs: int, device: str | None, cluster: dict, nodes: list[dict]) -> dict:
    """What one run asks of Ray so that `jobs` of them share a GPU, or a machine without one; device
    "cpu" leaves the GPUs alone. From `ray.cluster_resources()`, and those of each machine."""
    if jobs < 1:
        raise ValueError(f"jobs must be positive, got {jobs}")
    if cluster.get("GPU", 0) and device != "cpu":
        return {"num_gpus": 1 / jobs, "num_cpus": 1}
    if device not in (None, "cpu"):
        raise ValueError(f"device {device!r} was asked for, but the cluster has no GPU")
    smallest = min((n["CPU"] for n in nodes if n.get("CPU")), default=1)
    return {"num_cpus": max(1, int(smallest) // jobs)}


def keep(result: Result, files: dict[str, bytes], results: Path) -> None:
    """Writes what a task gave back, unless it left its files on this very disk."""
    for name, content in files.items():
        if not (results / name).exists():
            with replacing(results / name) as temporary:
                temporary.write_bytes(content)
    if stored.load(result.run, results) is None:
        stored.save(result, results)


def run_all(runs: list[Run], results: Path, jobs: int, device: str | None, state: Path) -> int:
    """Trains those of `runs` that have no result yet on a Ray cluster, in their order; returns the
    failures. `jobs` of them share one GPU, or one machine that has none; `state` is the folder of
    their checkpoints.

    Raises:
        RuntimeError: if ray is not installed.
        ValueError: if jobs or device do not fit the cluster.
    """
    try:
        import ray
    except ImportError as error:
        missing = "the engine 'ray' needs the package ray, which is not installed: pip install ray"
        raise RuntimeError(missing) from error
    todo, failed = [], 0
    for run in runs:
        try:
            todo += [run] if stored.load(run, results) is None else []
        except stored.ResultError as error:  # one damaged file must not stop the others
            print(f"failed: {error}", file=sys.stderr, flush=True)
            failed += 1
    # The package travels to every machine; where the data is, each machine has to say itself.
    package = {"py_modules": [str(stored.ROOT / "cvassign")]}
    ray.init(runtime_env=package, include_dashboard=False, ignore_reinit_error=True)
    try:
        nodes = [n["Resources"] for n in ray.nodes() if n["Alive"]]
        need = resources(jobs, device, ray.cluster_resources(), nodes)
        # A run whose worker died goes on from its last epoch; its own errors would come again.
        task = ray.remote(max_retries=3, **need)(train)
        folders = str(results.resolve()), str(state.resolve())
        waiting = {task.remote(run, *folders, device): run for run in todo}
        while waiting:
            (reference, *_), _ = ray.wait(list(waiting), num_returns=1)
            run = waiting.pop(reference)
            try:
                result, files = ray.get(reference)
                keep(result, files, results)
                print(said(result), flush=True)
            except ray.exceptions.RayError as error:  # its own, or its worker died too often
                if isinstance(getattr(error, "cause", None), stored.Busy):
                    print(f"{run.file_name}: another process trains it", flush=True)
                else:
                    print(f"failed: {run.file_name}: {error}", file=sys.stderr, flush=True)
                    failed += 1
    finally:
        ray.shutdown()
    return failed


def main(arguments: list[str] | None = None) -> int:
    parser = parser_of("cvassign.study.ray", __doc__, "run")
    given = parser.parse_args(arguments)
    runs, state = all_runs(given.preset, given.section, given.model), given.out / "checkpoints"
    try:
        return int(run_all(runs, given.out, given.jobs, given.device, state) > 0)
    except ValueError as error:
        parser.error(str(error))
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    sys.exit(main())
