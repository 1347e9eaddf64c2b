"""The rig file: which sensors a robot has, where they publish and how their bytes are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unim2_core.errors import RigError, cause

SENSORS = ("rgb", "depth", "thermal", "nir", "polarization")

Layout = Literal["mosaic_2x2", "mosaic_bayer_4x4", "quad_topics", "stokes", "dolp_aolp"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DepthDecode(_Strict):
    """How depth counts become metres."""

    unit_m: float = Field(0.001, gt=0, description="metres per count of 16UC1; 32FC1 is metres")


class ThermalDecode(_Strict):
    """How thermal counts become kelvin."""

    conversion: Literal["centikelvin", "decikelvin", "scale_offset", "relative"] = Field(
        "relative", description="relative: not radiometric, scaled by a robust running range"
    )
    scale: float = Field(1.0, description="scale_offset: kelvin per count")
    offset: float = Field(0.0, description="scale_offset: kelvin at count zero")


class PolarizationDecode(_Strict):
    """How a polarization camera lays out its angles."""

    layout: Layout = Field(
        "mosaic_2x2", description="polarizers on the pixels, or parts from several topics"
    )
    angles_deg: tuple[int, int, int, int] = Field(
        (90, 45, 135, 0), description="polarizer angle at (0,0) (0,1) (1,0) (1,1) of a block"
    )
    bayer: Literal["rggb", "bggr", "grbg", "gbrg"] = Field(
        "rggb", description="mosaic_bayer_4x4: colours of the blocks"
    )
    aolp_unit: Literal["rad", "deg"] = Field("rad", description="dolp_aolp: unit of the angle")

    @model_validator(mode="after")
    def _all_four_angles(self) -> PolarizationDecode:
        if sorted(self.angles_deg) != [0, 45, 90, 135]:
            raise ValueError(f"expected each of 0, 45, 90, 135 once, found {self.angles_deg}")
        return self


class Extrinsics(_Strict):
    """Pose of this camera in the reference camera's optical frame: p_ref = R p + t."""

    translation_m: tuple[float, float, float] = Field(description="t, metres")
    rotation_xyzw: tuple[float, float, float, float] = Field(description="R, a quaternion")


class Sensor(_Strict):
    """One camera: where it publishes, how to read it, how late it may be."""

    topic: str = Field("", description="of its images")
    topics: dict[str, str] = Field(
        default_factory=dict,
        description="instead of topic, for polarization from several topics: part -> topic; "
        "quad_topics: 0 45 90 135; stokes: s0 s1 s2; dolp_aolp: s0 dolp aolp (s0 optional)",
    )
    camera_info_topic: str = Field("", description="empty: camera_info beside the image topic")
    required: bool = Field(False, description="no output at all without it")
    max_age_s: Seconds = Field(0.1, description="largest skew to the reference that is used")
    offset_s: float = Field(0.0, description="added to the stamps of this sensor")
    max_rate_hz: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="images a second that are used; 0: all"
    )
    stamp: Literal["header", "arrival"] = Field(
        "header", description="arrival: for a driver that leaves header.stamp zero or odd"
    )
    frame_id: str = Field("", description="overrides header.frame_id where not empty")
    full_scale: float = Field(0.0, ge=0, description="nir: count of white; 0 = of the encoding")
    depth: DepthDecode = Field(DepthDecode(), description="of the sensor depth")
    thermal: ThermalDecode = Field(ThermalDecode(), description="of the sensor thermal")
    polarization: PolarizationDecode = Field(
        PolarizationDecode(), description="of the sensor polarization"
    )
    extrinsics: Extrinsics | None = Field(
        None, description="null: from tf where there is one, else taken as aligned"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Sensor:
        if bool(self.topic) == bool(self.topics):
            raise ValueError("expected either topic or topics")
        return self

    @property
    def image_topics(self) -> dict[str, str]:
        """Part name -> topic; one part named ``image`` where there is one topic."""
        return dict(self.topics) if self.topics else {"image": self.topic}

    @property
    def info_topic(self) -> str:
        """Topic of the camera_info that belongs to this sensor."""
        if self.camera_info_topic:
            return self.camera_info_topic
        base = next(iter(self.image_topics.values())).removesuffix("/compressed")
        return base.removesuffix("/compressedDepth").rsplit("/", 1)[0] + "/camera_info"


class Rig(_Strict):
    """All cameras of a robot; the same file serves a bag and the live node."""

    version: Literal[1] = Field(1, description="of this format")
    name: str = Field("robot", description="of the rig, for people")
    reference: str = Field(
        "rgb", description="the sensor whose stamps, frame and size the segmentation has"
    )
    deadline_s: Seconds = Field(0.05, description="longest wait for a late sensor")
    sensors: dict[str, Sensor] = Field(
        description="of rgb, depth, thermal, nir, polarization those that there are"
    )

    @model_validator(mode="after")
    def _known_sensors(self) -> Rig:
        unknown = sorted(set(self.sensors) - set(SENSORS))
        if unknown:
            raise ValueError(f"unknown sensors {unknown}; expected some of {list(SENSORS)}")
        if self.reference not in self.sensors:
            raise ValueError(f"reference {self.reference!r} is not among {list(self.sensors)}")
        topics = Counter(t for s in self.sensors.values() for t in s.image_topics.values())
        shared = [topic for topic, count in topics.items() if count > 1]
        if shared:
            raise ValueError(f"expected each image topic once, found twice: {shared}")
        return self

    @property
    def reference_topic(self) -> str:
        """Topic of the reference sensor's images; of their first part where they have several."""
        return next(iter(self.sensors[self.reference].image_topics.values()))

    @classmethod
    def load(cls, path: Path) -> Rig:
        """Read and validate a rig file.

        Raises:
            RigError: the file is missing, is not YAML, or a key is unknown or out of range.
        """
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RigError(
                f"cannot read the rig file {path}",
                expected="a YAML file with the keys reference and sensors",
                found=cause(error),
                remedy="write a first one with: unim2 rig BAG --out rig.yaml",
            ) from error
        return cls.parse(content, source=str(path))

    @classmethod
    def parse(cls, content: object, source: str = "rig") -> Rig:
        """Validate a rig that was read from YAML or written in code.

        Raises:
            RigError: a key is unknown or a value out of range.
        """
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(str(part) for part in problem['loc']) or 'rig'}: {problem['msg']}"
                for problem in error.errors()
            )
            raise RigError(
                f"{source} is not a valid rig",
                expected="the keys of the rig format, see config/rigs",
                found=problems,
                remedy="mend the keys that are named, or start from: unim2 rig BAG",
            ) from error

    @classmethod
    def default(cls, sensors: tuple[str, ...] = SENSORS, root: str = "/") -> Rig:
        """The rig without a file: topic ``<sensor>/image`` below a root, taken as aligned."""
        return cls(
            name="default", sensors={name: Sensor(topic=f"{root}{name}/image") for name in sensors}
        )

    def only(self, sensors: Collection[str]) -> Rig:
        """The rig with its reference and those of its sensors that are named."""
        wanted = {self.reference, *sensors}
        kept = {name: sensor for name, sensor in self.sensors.items() if name in wanted}
        return self.model_copy(update={"sensors": kept})

    def dump(self) -> str:
        """The rig as YAML, without the keys that have their default value."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return yaml.safe_dump(
            {"version": 1, "reference": self.reference, **content}, sort_keys=False
        )
