"""A served model held against labels: the engine that a robot runs, picture after picture.

Needs no torch. Labels only report.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.errors import DataError
from unim2_core.evaluation.runner import Floats, Integers, Tally
from unim2_core.inference.auxiliaries import TokenReader
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Manifest
from unim2_core.sensing.warping import registered

Answer = Callable[[Floats, Floats, Picture], Integers]
"""Tokens (M, h, w, D) and presence (M, h, w) of a picture -> clusters (H, W), any size."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What was counted.

    Attributes:
        tallies: name of a subset -> its counts.
        pictures: how many had labels.
        unlabelled: how many had none, and were left out.
        seen: modality -> in how many pictures it was there.
    """

    tallies: Mapping[str, Tally]
    pictures: int
    unlabelled: int
    seen: Mapping[str, int]


def measure(
    engine: Engine,
    manifest: Manifest,
    source: PictureSource,
    subsets: Mapping[str, Sequence[str]],
    answer: Answer | None = None,
    progress: Callable[[int], object] | None = None,
    half_auxiliaries: bool = False,
) -> Measured:
    """Hold a model against the labels of pictures.

    Every image goes through the backbone once; a subset only decides what the head is told to be
    there. Without ``answer``, the head's classes are resized to the labels by the nearest, as the
    robot's pipeline resizes them to its image.

    Args:
        engine: the model.
        manifest: its manifest.
        source: the pictures, encoded as the model takes them.
        subsets: name -> modalities that are told to be there; all others are missing.
        answer: another way from tokens to clusters.
        progress: called with how many pictures are done.
        half_auxiliaries: see ``TokenReader``.

    Raises:
        DataError: there are no labels, or none of the modalities in any picture.
    """
    names = [entry.name for entry in manifest.modalities]
    classes = source.classes
    if classes is None or source.label_size is None:
        raise _no_labels("no labels")
    wanted = set().union(*subsets.values())
    read = TokenReader(engine, manifest, source.size, half_auxiliaries)
    tallies = {name: Tally(len(manifest.labels), len(classes.names)) for name in subsets}
    answer = answer or (lambda tokens, presence, _: engine.classify(tokens, presence)[0])
    pictures = unlabelled = 0
    seen: Counter[str] = Counter()
    for done, picture in enumerate(source, start=1):
        if picture.labels is None:
            unlabelled += 1
        else:
            pictures += 1
            seen.update(wanted.intersection(picture.images))
            tokens, presence = in_the_grid(read, manifest, source, picture, wanted)
            for subset, members in subsets.items():
                there = np.array([name in members for name in names], np.float32)[:, None, None]
                told = presence * there
                predicted = answer(tokens * told[..., None], told, picture)
                tallies[subset].add(predicted[None], picture.labels[None])
        if progress:
            progress(done)
    if not pictures + unlabelled or (pictures and not seen):
        raise DataError(
            "there is nothing to measure on",
            expected=f"pictures of {', '.join(sorted(wanted))}",
            found=f"{pictures} pictures without them" if pictures else "none",
            remedy="look at the streams with: unim2 info BAG, or name others with --modalities",
        )
    if not any(found.labelled for found in tallies.values()):
        raise _no_labels(f"{pictures + unlabelled} pictures, and no pixel with a class")
    return Measured(tallies, pictures, unlabelled, {name: seen[name] for name in names})


def in_the_grid(
    read: TokenReader,
    manifest: Manifest,
    source: PictureSource,
    picture: Picture,
    wanted: Collection[str],
) -> tuple[Floats, Floats]:
    """Tokens (M, h, w, D) in the reference's grid, and presence (M, h, w)."""
    patch, names = manifest.backbone.patch_size, [entry.name for entry in manifest.modalities]
    grid = (source.size[0] // patch, source.size[1] // patch)
    tokens = np.zeros((len(names), *grid, manifest.backbone.embed_dim), np.float32)
    presence = np.zeros(tokens.shape[:3], np.float32)
    for index, name in enumerate(names):
        if name in wanted and name in picture.images:
            own = read(name, picture.images[name])
            valid, grid_map = picture.valid.get(name), picture.maps.get(name)
            presence[index] = registered(own, valid, grid_map, out=tokens[index])[1]
    return tokens, presence


def _no_labels(found: str) -> DataError:
    return DataError(
        "there is nothing to measure against",
        expected="pictures with labels, which only report",
        found=found,
        remedy="give labels and classes in the data set's YAML file, or a synthetic drive",
    )
