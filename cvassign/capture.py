# LLM-assisted: prompts P5, P7, P10, P15, P16, see report.md
"""A training step made fast without changing what it computes: compiled layers, a CUDA graph.

A small ViT's step on a GPU is some 550 kernels of a few microseconds each: Python needs longer to
launch them than the GPU to run them. A CUDA graph records these launches once, then one call
replays them. It replays addresses, not values, so what changes from step to step (images, targets,
learning rate) is copied into tensors that the recording reads."""

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cvassign.device import autocast, first_line

Step = Callable[[Tensor, Tensor], Tensor]  # images, soft targets -> loss


def compile_layers(model: nn.Module, images: Tensor) -> None:
    """Compiles `model.layers` and tries them on images (B, C, S, S): a broken compiler is a warning
    and training goes on uncompiled, it must not end a long run."""
    # Layer by layer: the layers share one graph, so compiling takes seconds, not minutes.
    torch.compiler.reset()  # it keeps eight graphs of one function, for all models together
    try:
        for layer in model.layers:
            layer.compile(dynamic=False)
        with autocast(images.device):
            model.train()(images).float().sum().backward()
    except Exception as error:  # whatever a compiler, a linker or a temporary folder does
        warnings.warn(f"training goes on without torch.compile: {first_line(error)}", stacklevel=3)
        for layer in model.layers:
            layer._compiled_call_impl = None
    model.zero_grad(set_to_none=True)


def captured(
    step: Step, model: nn.Module, optimizers: Sequence[Optimizer], x: Tensor, y: Tensor
) -> Step:
    """`step`, which may change the model, the optimizers' state and the device's random numbers, as
    a CUDA graph for batches like x and y; `step` itself if that fails."""
    x, y = x.clone(), y.clone()  # what the graph reads; each step's batch is copied into them
    before = {k: v.clone() for k, v in _tensors(model, optimizers).items()}
    with torch.cuda.device(x.device):
        random = torch.cuda.get_rng_state()
        try:
            stream = torch.cuda.Stream()  # capturing asks for warm-up steps on another stream:
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # they compile, allocate, and make the optimizers' state
                    step(x, y)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                loss = step(x, y)
        except RuntimeError as error:
            warnings.warn(f"the step runs without a CUDA graph: {error}", stacklevel=2)
            return step
        finally:  # warming up must leave no trace; in place, as a graph keeps addresses
            with torch.no_grad():
                for key, tensor in _tensors(model, optimizers).items():
                    tensor.copy_(before[key]) if key in before else tensor.zero_()  # as at a start
            torch.cuda.set_rng_state(random)

    def replay(new_x: Tensor, new_y: Tensor) -> Tensor:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()
        return loss  # overwritten by the next replay

    return replay


def _tensors(model: nn.Module, optimizers: Sequence[Optimizer]) -> dict[object, Tensor]:
    """All tensors that a step changes, under keys that last."""
    states = [(id(p), s) for optimizer in optimizers for p, s in optimizer.state.items()]
    return dict(model.state_dict()) | {(p, k): v for p, s in states for k, v in s.items()}
