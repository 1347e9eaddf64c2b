"""How the reference release names the tensors of the trained part, in our names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from unim2_core.model.segmenter import SHARED

RENAMED: Mapping[str, str] = MappingProxyType(
    {
        r"modality_networks\.": "fusion.networks.",
        r"fusion_conv\.": "fusion.layers.",
        r"cluster1\.0\.": "linear.",
        r"cluster2\.": "nonlinear.",
        r"modal_projection_head\.": f"harmonizers.{SHARED}.",
    }
)
"""Beginning of a name there -> beginning of ours, within the network."""


def segmenter_name(name: str) -> str:
    """Our name of a tensor of the network; one that is not known stays as it is."""
    for theirs, ours in RENAMED.items():
        if re.match(theirs, name):
            return re.sub(f"^{theirs}", ours, name)
    return name


def segmenter_state(tensors: Mapping[str, Any], prefix: str = "") -> dict[str, Tensor]:
    """All entries of a mapping whose names begin with a prefix, under our names."""
    return {
        segmenter_name(name.removeprefix(prefix)): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
