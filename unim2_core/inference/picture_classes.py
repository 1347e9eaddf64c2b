"""What a model says of pictures out of a data set or a drive, one by one."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.inference.auxiliaries import TokenReader
from unim2_core.inference.engine import Classified, Engine
from unim2_core.model.bundle import Manifest, Size
from unim2_core.sensing.warping import registered

Floats = NDArray[np.float32]


def picture_tokens(
    read: TokenReader, manifest: Manifest, size: Size, picture: Picture, wanted: Collection[str]
) -> tuple[Floats, Floats]:
    """Tokens (M, h, w, D) in the reference's grid, and presence (M, h, w).

    Args:
        read: runs the backbone.
        manifest: of the model.
        size: height and width of the pictures.
        picture: encoded as the model takes it.
        wanted: modalities to look at; the others count as missing.
    """
    patch, names = manifest.backbone.patch_size, [entry.name for entry in manifest.modalities]
    grid = (size[0] // patch, size[1] // patch)
    tokens = np.zeros((len(names), *grid, manifest.backbone.embed_dim), np.float32)
    presence = np.zeros(tokens.shape[:3], np.float32)
    kept = read({name: image for name, image in picture.images.items() if name in wanted})
    for index, name in enumerate(names):
        if name in kept:
            own = kept[name]
            valid, grid_map = picture.valid.get(name), picture.maps.get(name)
            presence[index] = registered(own, valid, grid_map, out=tokens[index])[1]
    return tokens, presence


def classified(
    engine: Engine, manifest: Manifest, source: PictureSource
) -> Iterator[tuple[Picture, Classified]]:
    """Every picture with its classes, from all modalities that are there."""
    read = TokenReader(engine, manifest, source.size)
    for picture in source:
        seen = picture_tokens(read, manifest, source.size, picture, picture.images)
        yield picture, engine.classify(*seen)
