"""What a store of features says of itself, so that it can be learnt from without its pictures."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from unim2_core.data.pictures import PictureSource
from unim2_core.errors import DataError
from unim2_core.learning.feature_files import FORMAT_VERSION, RecordLayout
from unim2_core.learning.features import FeatureStore
from unim2_core.model.frozen import FrozenBackbone

FACTS = "store.json"
AGAIN = "run unim2 fleet features again, into a new --out (and --to)"

_AS_THEY_ARE = ("backbone", "backbone_name", "encodings", "pictures", "seen", "reference")

Seen = Literal["everywhere", "somewhere", "nowhere"]


@dataclass(frozen=True)
class Recorded:
    """Where the pictures of a store are from.

    Attributes:
        reference: sensor into whose image all tokens are registered.
        drives: name, and digest of the files, of each drive.
    """

    reference: str
    drives: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StoreFacts:
    """``store.json``, beside the records of a complete store.

    Attributes:
        layout: of the records.
        backbone: digest of the network that the features are of.
        backbone_name: for people.
        encodings: modality -> what ``Encoder.from_description`` takes.
        size: height and width of the images, pixels.
        pictures: fingerprint of the source.
        seen: modality -> how much it sees of all pictures.
        reference: sensor into whose image all tokens are registered.
        drives: name, and digest of the files, of each drive.
    """

    layout: RecordLayout
    backbone: str
    backbone_name: str
    encodings: Mapping[str, Mapping[str, Any]]
    size: tuple[int, int]
    pictures: str
    seen: Mapping[str, Seen]
    reference: str
    drives: tuple[tuple[str, str], ...]

    @classmethod
    def of(
        cls,
        source: PictureSource,
        backbone: FrozenBackbone,
        layout: RecordLayout,
        store: FeatureStore,
        recorded: Recorded,
    ) -> StoreFacts:
        """Of a complete store; looks at where the modalities are present."""
        return cls(
            layout,
            backbone.digest,
            str(getattr(backbone, "name", "")),
            {name: dict(how) for name, how in source.encodings.items()},
            source.size,
            source.fingerprint(),
            {name: _seen(store, name) for name in store.modalities},
            recorded.reference,
            recorded.drives,
        )

    def dump(self) -> bytes:
        """As the file's content."""
        said = {"version": FORMAT_VERSION, **asdict(self)}
        return json.dumps({**said, "checksum": _checksum(said)}, indent=1).encode() + b"\n"

    @classmethod
    def parse(cls, content: bytes, where: str) -> StoreFacts:
        """Read the file's content.

        Raises:
            DataError: it is none, of another version, or damaged.
        """
        try:
            said = json.loads(content)
            checksum, version = said.pop("checksum"), said["version"]
        except (ValueError, TypeError, KeyError, AttributeError):
            checksum, said, version = None, None, None
        lacking = [name for name in _AS_THEY_ARE if said is not None and name not in said]
        if said is not None and (version != FORMAT_VERSION or lacking):
            raise DataError(
                f"the features in {where} are of another version",
                expected=f"version {FORMAT_VERSION} in {FACTS}, with {', '.join(_AS_THEY_ARE)}",
                found=f"version {version}"
                + (f", without {', '.join(lacking)}" if lacking else ""),
                remedy=AGAIN,
            )
        if said is None or checksum != _checksum(said):
            raise DataError(
                f"the features in {where} are damaged",
                expected=f"a whole {FACTS}",
                found="another checksum than it says" if said else "no JSON of that form",
                remedy=AGAIN,
            )
        said.pop("version")
        layout = said.pop("layout")
        label = layout["label_size"]
        return cls(
            RecordLayout(
                tuple(layout["modalities"]),
                (layout["grid"][0], layout["grid"][1]),
                layout["dim"],
                None if label is None else (label[0], label[1]),
            ),
            size=(said["size"][0], said["size"][1]),
            drives=tuple((name, digest) for name, digest in said["drives"]),
            **{name: said[name] for name in _AS_THEY_ARE},
        )

    @property
    def name(self) -> str:
        """Of its drives, for people and for the order of reading."""
        return ", ".join(name for name, _ in self.drives)


def _checksum(said: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(said, sort_keys=True).encode())


def _seen(store: FeatureStore, name: str) -> Seen:
    presence = store.presence[name]
    if not any(picture.any() for picture in presence):
        return "nowhere"
    return "everywhere" if all(bool(np.all(picture)) for picture in presence) else "somewhere"
