"""States to go on from, and candidates to choose among; both written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.files import write_atomically
from unim2_core.learning.objective import Objective

FORMAT = 1
CHECKPOINT = "last.ckpt"
CANDIDATES = "candidates"
UNFINISHED = re.compile(r"\.(last\.ckpt|history\.jsonl|wandb-id|step-\d+\.safetensors)\.\w{8}")
SERVED = ("segmenter.", "cluster_probe.", "linear_probe.")
"""What a candidate holds of an objective."""

DAMAGE = (OSError, RuntimeError, EOFError, ValueError, KeyError, TypeError, pickle.UnpicklingError)
"""What reading a damaged file, or one of something else, raises."""

Plain = None | bool | int | float | str
Facts = Mapping[str, Plain]
"""What decides the weights of a training, flat: dotted name -> value."""


@dataclass(frozen=True)
class Candidate:
    """A snapshot of the weights that would be served.

    Attributes:
        step: after how many steps it was taken.
        path: its file.
    """

    step: int
    path: Path


def facts_of(**parts: object) -> dict[str, Plain]:
    """Flatten configurations: dataclasses, mappings and sequences become dotted names."""
    return dict(_flat("", parts))


def _flat(name: str, value: object) -> Iterator[tuple[str, Plain]]:
    inner: Mapping[str, object]
    if is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: getattr(value, field.name) for field in fields(value)}
    elif isinstance(value, Mapping):
        inner = value
    elif isinstance(value, Sequence) and not isinstance(value, str):
        names = getattr(value, "_fields", range(len(value)))  # those of a named tuple
        inner = {str(key): item for key, item in zip(names, value, strict=True)}
    else:
        yield name, value if isinstance(value, Plain) else str(value)
        return
    for key, item in inner.items():
        yield from _flat(f"{name}.{key}" if name else key, item)


def digest(facts: Facts) -> str:
    """Hex digest of facts, equal for equal ones."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def save_checkpoint(run: Path, facts: Facts, state: Mapping[str, Any]) -> None:
    """Replace the state in a run directory.

    Args:
        run: the directory.
        facts: what decides the weights of this training.
        state: tensors, numbers, strings and containers of them.

    Raises:
        Unim2Error: it cannot be written; the old state is still there.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "facts": json.dumps(facts), "state": dict(state)}, buffer)
    write_atomically(run / CHECKPOINT, buffer.getvalue())


def load_checkpoint(run: Path, facts: Facts) -> dict[str, Any] | None:
    """The state in a run directory, on the CPU; None where there is none.

    Raises:
        ModelError: it is of another training, which is told apart by its facts, or is damaged.
    """
    path = run / CHECKPOINT
    if not path.exists():
        return None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version, found, state = content["format"], content["facts"], content["state"]
        saved = json.loads(found)
    except DAMAGE as error:
        raise _unusable(path, error) from error
    if version != FORMAT:
        raise _unusable(path, f"format {version}, not {FORMAT}")
    different = differences(saved, facts)
    if different:
        raise ModelError(
            f"{run} holds another training",
            expected="; ".join(f"{name} = {there!r}" for name, there, _ in different),
            found="; ".join(f"{name} = {here!r}" for name, _, here in different),
            remedy="train with what that run began with, or into another directory",
        )
    return dict(state)


def differences(saved: Facts, facts: Facts) -> list[tuple[str, Plain, Plain]]:
    """Names whose values differ, with the saved value and the present one."""
    names = sorted({*saved, *facts})
    return [
        (name, saved.get(name), facts.get(name))
        for name in names
        if name not in saved or name not in facts or saved[name] != facts[name]
    ]


def _unusable(path: Path, reason: object) -> ModelError:
    return ModelError(
        f"{path} is no state to go on from",
        expected="what a training of this version wrote",
        found=str(reason).strip().splitlines()[0] if str(reason).strip() else repr(reason),
        remedy="train into another directory, or remove that file to begin anew",
    )


def candidate_path(run: Path, step: int) -> Path:
    """Where the snapshot after so many steps lies."""
    return run / CANDIDATES / f"step-{step:06d}.safetensors"


def save_candidate(run: Path, step: int, objective: Objective, facts: Facts) -> Candidate:
    """Write what the objective holds now as a candidate."""
    tensors = {
        name: value.detach().cpu().contiguous()
        for name, value in objective.state_dict().items()
        if name.startswith(SERVED)
    }
    metadata = {"training": digest(facts)}  # one entry: the order of several is random
    candidate = Candidate(step, candidate_path(run, step))
    write_atomically(candidate.path, save(tensors, metadata=metadata))
    return candidate


def load_candidate(objective: Objective, path: Path) -> None:
    """Put a candidate's network and probes into an objective; a decoder stays as it is.

    Raises:
        ModelError: the file is damaged, or of a network of another form.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} cannot be read as a candidate",
            expected="a safetensors file of a training",
            found=str(error),
            remedy="train again, or choose another candidate",
        ) from error
    wanted = {
        name: value for name, value in objective.state_dict().items() if name.startswith(SERVED)
    }
    wrong = sorted({*wanted} ^ {*tensors}) + [
        f"{name} {tuple(tensors[name].shape)}, not {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in tensors and tensors[name].shape != value.shape
    ]
    if wrong:
        raise ModelError(
            f"{path} is of a network of another form",
            expected=f"{len(wanted)} tensors of this network and its probes",
            found="; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if wrong[5:] else ""),
            remedy="use the modalities, sizes and classes that it was trained with",
        )
    objective.load_state_dict(tensors, strict=False)


def candidates_in(run: Path, facts: Facts, steps: Sequence[int]) -> tuple[Candidate, ...]:
    """The candidates of a training that lie in a run directory, in order.

    Args:
        run: the directory.
        facts: what decides the weights of the training.
        steps: after which a snapshot has been taken by now.

    Raises:
        ModelError: there are candidates of another training.
    """
    foreign = []
    for path in sorted((run / CANDIDATES).glob("step-*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                owner = (file.metadata() or {}).get("training")
        except (OSError, SafetensorError):
            owner = None
        if owner != digest(facts):
            foreign.append(path.name)
    if foreign:
        raise ModelError(
            f"{run / CANDIDATES} holds candidates of another training",
            expected="none but this training's",
            found=", ".join(foreign[:3])
            + (f" and {len(foreign) - 3} more" if foreign[3:] else ""),
            remedy="train into another directory, or remove that folder",
        )
    found = (Candidate(step, candidate_path(run, step)) for step in steps)
    return tuple(candidate for candidate in found if candidate.path.exists())


def remove_unfinished(run: Path) -> None:
    """Remove what a killed process had begun to write, see ``files.write_atomically``."""
    for path in (*run.glob(".*"), *(run / CANDIDATES).glob(".*")):
        if UNFINISHED.fullmatch(path.name):
            path.unlink(missing_ok=True)
