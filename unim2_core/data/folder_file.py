"""The YAML file that describes a folder of images: what it may say, and what it may not.

Example::

    modalities:
      rgb: {as: rgb, glob: 'images/*.png'}
      thermal: {as: thermal, glob: 'thermal/*.tiff', thermal: {conversion: centikelvin}}
    labels: {glob: 'annotations/*.png', colors: {'0,0,0': 0, '0,255,0': 1}}
    classes: [ground, plant]
    split: {train: [0, 20], test: [20, 40]}

Globs are relative to the file. Files are paired in sorted order of their paths; the first modality
is the reference.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from unim2_core.data.labels import IGNORED
from unim2_core.errors import DataError, cause
from unim2_core.sensing.rig import DepthDecode, ThermalDecode

Kind = Literal["rgb", "depth", "thermal", "nir", "aolp", "dolp"]
Value = Annotated[int, Field(ge=0, le=IGNORED)]
Channel = Annotated[int, Field(ge=0)]

_OPTIONS = {"depth": "depth", "thermal": "thermal", "full_scale": "nir", "aolp_unit": "aolp"}
"""Option -> the kind that it belongs to."""


def _colour(text: str) -> str:
    parts = text.split(",")
    if len(parts) != 3 or not all(p.strip().isdigit() and int(p) <= 255 for p in parts):
        raise ValueError(f"expected 'red,green,blue' from 0 to 255, found {text!r}")
    return ",".join(str(int(part)) for part in parts)


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text) or text == "labels":
        raise ValueError(f"expected a name of letters, digits and _, not labels, found {text!r}")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FolderModality(_Strict):
    """The files of one modality.

    ``depth`` and ``thermal`` are the options of the rig file. By default integers of depth are
    millimetres and floats metres; thermal images are relative, of 8 or 16 bits alike.
    """

    kind: Kind = Field(alias="as", description="what the files hold")
    glob: str = Field(min_length=1, description="the files, relative to this one")
    channels: tuple[Channel, ...] | None = Field(
        None, min_length=1, max_length=3, description="of the file, in order: red, green, blue, .."
    )
    depth: DepthDecode = Field(DepthDecode(), description="of depth")
    thermal: ThermalDecode = Field(ThermalDecode(), description="of thermal")
    full_scale: float = Field(0.0, ge=0, description="nir: count of white; 0 = of the file's type")
    aolp_unit: Literal["rad", "deg", "range"] | None = Field(
        None,
        description="of aolp; range: integers from 0 to the largest are half a turn; default: "
        "floats in rad, integers in range",
    )

    @model_validator(mode="after")
    def _fitting_options(self) -> FolderModality:
        for option, kind in _OPTIONS.items():
            if option in self.model_fields_set and kind != self.kind:
                raise ValueError(f"{option} is an option of {kind}, not of {self.kind}")
        if self.channels is not None and len(self.channels) not in self.channel_counts:
            counts = " or ".join(map(str, self.channel_counts))
            raise ValueError(f"expected {counts} channels for {self.kind}")
        return self

    @property
    def channel_counts(self) -> tuple[int, ...]:
        """How many channels may be picked."""
        return (1, 3) if self.kind == "rgb" else (1,)


class FolderLabels(_Strict):
    """The label files: colours or ids become classes; what is not listed is ignored."""

    glob: str = Field(min_length=1, description="the files, as many as pictures")
    colors: dict[Annotated[str, AfterValidator(_colour)], Value] | None = Field(
        None, description="'red,green,blue': class"
    )
    ids: dict[Annotated[int, Field(ge=0, le=65535)], Value] | None = Field(
        None, description="value: class; neither colors nor ids: the file's ids are the classes"
    )
    ignore: Value = Field(IGNORED, description="the class that is no class")

    @model_validator(mode="after")
    def _one_of_both(self) -> FolderLabels:
        if self.colors is not None and self.ids is not None:
            raise ValueError("expected colors or ids, not both")
        if self.colors == {} or self.ids == {}:
            raise ValueError("expected at least one colour or id")
        return self

    @property
    def values(self) -> set[int]:
        """All classes that a listed colour or id means."""
        return set((self.colors or self.ids or {}).values()) - {self.ignore}


class FolderSplit(_Strict):
    """Which images are for training and which for testing."""

    train: tuple[Channel, Channel] | str | None = Field(
        None, description="half-open range of positions in sorted order, or a list file"
    )
    test: tuple[Channel, Channel] | str | None = Field(None, description="likewise")


class FolderFile(_Strict):
    """The whole description."""

    modalities: dict[Annotated[str, AfterValidator(_name)], FolderModality] = Field(
        min_length=1, description="name: files; the first is the reference"
    )
    labels: FolderLabels | None = Field(None, description="never learnt from, only reported")
    classes: tuple[str, ...] | None = Field(
        None, min_length=1, max_length=255, description="names of the classes of the labels"
    )
    split: FolderSplit = Field(FolderSplit(), description="without it train is all of them")

    @model_validator(mode="after")
    def _classes_for_labels(self) -> FolderFile:
        if self.labels is None:
            return self
        if self.classes is None:
            raise ValueError("labels need classes: the list of their names")
        beyond = [value for value in self.labels.values if value >= len(self.classes)]
        if beyond:
            raise ValueError(
                f"expected classes from 0 to {len(self.classes) - 1} or ignore = "
                f"{self.labels.ignore}, found {sorted(beyond)}"
            )
        return self

    @classmethod
    def load(cls, path: Path) -> FolderFile:
        """Read and validate a description.

        Raises:
            DataError: the file is missing, is not YAML, or a key is unknown or out of range.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise DataError(
                f"cannot read the data set's file {path}",
                expected="a YAML file with the key modalities",
                found=cause(error),
                remedy="check the path and the YAML; docs/reference/files.md has its keys",
            ) from error
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc']) or 'file'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise DataError(
                f"{path} does not describe a data set",
                expected="modalities: {NAME: {as, glob, channels}}, and as options labels, "
                "classes and split",
                found=problems,
                remedy="mend the keys that are named",
            ) from error
