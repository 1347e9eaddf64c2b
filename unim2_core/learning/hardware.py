"""Where a training runs: device, precision, and one process or several."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import nn

from unim2_core.errors import ModelError
from unim2_core.learning.group import Group
from unim2_core.learning.objective import Objective
from unim2_core.model.segmenter import Segmented

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16"]

CPU_FACTS = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
"""As Linux calls the instructions of x86 and Arm that multiply bfloat16."""


@dataclass(frozen=True)
class Process:
    """One of the processes that train together, as ``torchrun`` started them.

    Attributes:
        rank: its number, 0 for the one that writes.
        world: how many there are.
        local_world: how many of them are on this machine.
    """

    rank: int = 0
    world: int = 1
    local_world: int = 1

    @staticmethod
    def current() -> Process:
        """What the environment says; without ``torchrun`` there is one process.

        Raises:
            ModelError: the environment contradicts itself.
        """
        names = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        found = [os.environ.get(name) for name in names]
        if found[1] is None:
            return Process()
        try:
            process = Process(*(int(value or "") for value in found))
            whole = 0 <= process.rank < process.world and process.local_world >= 1
        except ValueError:
            whole = False
        if not whole:
            raise ModelError(
                "this process does not know which part of the training is its own",
                expected=f"{', '.join(names)} as torchrun sets them, or no WORLD_SIZE at all",
                found=", ".join(f"{n}={v}" for n, v in zip(names, found, strict=True)),
                remedy="torchrun --nproc-per-node N -m unim2_core.cli.train ...",
            )
        return process


def resolve_device(device: Device) -> Literal["cpu", "cuda"]:
    """The device that is meant.

    Raises:
        ModelError: a GPU is asked for and torch finds none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "there is no GPU to train on",
            expected="a CUDA device that torch can use",
            found=f"none (torch {torch.__version__})",
            remedy="--device cpu, or install torch for CUDA",
        )
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_precision(
    precision: Precision, device: Literal["cpu", "cuda"]
) -> Literal["fp32", "bf16"]:
    """The precision that is meant; ``bf16`` itself is honoured where it is slow, too."""
    if precision != "auto":
        return precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    try:
        flags = set(CPU_FACTS.read_text().split())
    except OSError:
        flags = set()
    return "bf16" if flags & BF16_FLAGS else "fp32"


@dataclass(frozen=True)
class Machine:
    """Where a training runs.

    Attributes:
        fabric: moves tensors, and averages gradients over processes.
        process: which of them this is.
        device: kind of the device.
        precision: of the network's matrix products.
    """

    fabric: Fabric
    process: Process
    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]

    def close(self) -> None:
        """Part from the other processes; whatever trains on it has to be closed before.

        What averages gradients must not be the last to hold on to the group: its destructor waits,
        with Python's lock in hand, for a thread that may want that lock, and waits for ever.
        """
        if self.process.world > 1:
            gc.collect()
            torch.distributed.destroy_process_group()


def open_machine(device: Device, precision: Precision) -> Machine:
    """Resolve device and precision; under ``torchrun``, join the other processes.

    Fabric's own precision stays fp32: its mixed precision would cast the inputs, and with them
    the points that are drawn, and the cosines of the loss. See ``network_in``.

    Raises:
        ModelError: there is no such device, or the environment contradicts itself.
    """
    process = Process.current()
    resolved = resolve_device(device)
    strategy: Any = "auto"
    if process.world > 1:
        meet(device)
        # Without labels the linear probe takes no part in the loss.
        strategy = DDPStrategy(
            process_group_backend="gloo" if resolved == "cpu" else "nccl",
            find_unused_parameters=True,
        )
    fabric = Fabric(
        accelerator=resolved,
        devices=process.local_world,
        num_nodes=process.world // process.local_world,
        strategy=strategy,
        precision="32-true",
    )
    fabric.launch()
    return Machine(fabric, process, resolved, resolve_precision(precision, resolved))


def meet(device: Device) -> Group:
    """Join the other processes of ``torchrun`` before the training: they share what comes first.

    Tensors in memory and on a GPU can both be exchanged afterwards.

    Raises:
        ModelError: there is no such device, or the environment contradicts itself.
    """
    process = Process.current()
    if process.world > 1:
        _join("gloo" if resolve_device(device) == "cpu" else "cpu:gloo,cuda:nccl")
    return Group(process.rank, process.world)


def _join(backend: str) -> None:
    """Meet the other processes, where ``torchrun`` may have started them again.

    Its store outlives a restart. Without a prefix of its own a process may read there where one
    of the life before was to be found, and wait in vain for it.
    """
    if torch.distributed.is_initialized():
        return
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    distributed: Any = torch.distributed
    store, rank, world = next(distributed.rendezvous("env://"))
    distributed.init_process_group(
        backend,
        store=distributed.PrefixStore(f"life {life}", store),
        rank=rank,
        world_size=world,
    )


@contextmanager
def network_in(
    precision: Literal["fp32", "bf16"], objective: Objective, device: Literal["cpu", "cuda"]
) -> Iterator[None]:
    """Let the matrix products of the network run in bfloat16, and nothing else.

    Weights, features, codes and the whole loss (normalisation, cosines, means) and both probes
    stay float32: shifts differ in the third digit, which bfloat16 does not have.
    """
    if precision == "fp32":
        yield
        return
    segmenter, decoder = objective.segmenter, objective.decoder
    parts: list[tuple[nn.Module, str]] = [(segmenter, "forward"), (segmenter, "supervised_codes")]
    if decoder is not None:
        parts.append((decoder, "forward"))
    for module, name in parts:
        setattr(module, name, _autocast(getattr(module, name), device))
    try:
        yield
    finally:
        for module, name in parts:
            delattr(module, name)  # the method of the class is seen again


def _autocast(method: Any, device: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            result = method(*args, **kwargs)
        if isinstance(result, Segmented):
            return Segmented(*(part.float() for part in result))
        if isinstance(result, dict):
            return {name: code.float() for name, code in result.items()}
        return result.float()

    return call
