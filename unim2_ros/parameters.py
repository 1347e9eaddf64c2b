"""The node's parameters: one validated table, declared to ROS from its own fields."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from unim2_core.errors import RigError, Unim2Error
from unim2_core.inference.backends import AUTO, Backend, Device, Precision
from unim2_core.model.bundle import MANIFEST
from unim2_core.sensing.intake import Matching, with_fallback
from unim2_core.sensing.rig import Rig, Sensor
from unim2_ros.approximate import ApproximateSynchronizer, message_filters
from unim2_ros.descriptors import descriptor

RUNNING = "at any time"
UNCONFIGURED = "while unconfigured"
NEVER = "never: read at start"

RIG_FIELDS = ("deadline_s",)
SENSOR_FIELDS = ("required", "max_age_s", "offset_s", "max_rate_hz")
"""Of each sensor of the rig, as ``<sensor>.<field>``; the rig's values are the defaults."""
_REMEDY = "mend it in the params file or on the command line"


def _field(changes: str, default: Any, description: str, **bounds: Any) -> Any:
    return Field(
        default, description=description, json_schema_extra={"changes": changes}, **bounds
    )


_running = functools.partial(_field, RUNNING)
_unconfigured = functools.partial(_field, UNCONFIGURED)


class SegmentParameters(BaseModel):
    """Parameters of the node ``segment``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = _running("", "path of the model bundle, NAME.unim2; required")
    rig: str = _unconfigured("", "path of the rig file; empty: <sensor>/image, aligned sensors")
    backend: Backend = _unconfigured(AUTO, "what runs the graphs; auto: the first that passes")
    precision: Precision = _unconfigured("fp32", "what the graphs compute in")
    device: Device = _unconfigured("auto", "where they run; auto: what the backend prefers")
    half_auxiliaries: bool = _unconfigured(
        False, "all sensors but the reference at half the resolution: faster"
    )
    threads: int = _unconfigured(0, "cores for the engine; 0: all", ge=0, le=256)
    sync: Literal["unim2", "approximate"] = _unconfigured(
        "unim2",
        "what matches images: ours, or ApproximateTimeSynchronizer of message_filters, which "
        "needs an image of every sensor",
    )
    sync_slop_s: float = _unconfigured(
        0.05, "sync approximate: largest distance between two stamps of a set", ge=0.001, le=10
    )
    sync_queue: int = _unconfigured(
        10, "sync approximate: images of a sensor that wait for partners", ge=1, le=1000
    )
    fallback_references: str = _unconfigured(
        "",
        "sensors, best first, as in thermal,depth: while the reference is silent the outputs are "
        "for the images of the first that speaks, with its stamps, frame and size; empty: none",
    )
    overlay_alpha: float = _running(0.5, "share of class colour in overlay", ge=0, le=1)
    stride: int = _running(
        1, "outputs have one pixel in so many of the reference image", ge=1, le=16
    )
    lazy: bool = _running(True, "compute only what somebody subscribes to")
    autostart: bool = _field(
        NEVER, True, "configure and activate by itself; false: wait for a lifecycle manager"
    )
    watch_model: float = _running(
        0.0,
        "seconds between two looks whether the bundle was replaced, to reload it; 0: never",
        ge=0,
        le=3600,
    )
    snapshot_s: float = _unconfigured(
        0.0, "seconds of input kept in memory for ~/save_snapshot; 0: none", ge=0, le=600
    )
    snapshot_mb: int = _unconfigured(
        512, "most memory for them, MB; the oldest go first", ge=1, le=65536
    )
    snapshot_dir: str = _unconfigured(".", "folder that snapshots are written to")

    def load_rig(self, sensors: tuple[str, ...]) -> Rig:
        """The rig of the file, or the default one with relative topics for these sensors."""
        if self.rig:
            return Rig.load(Path(self.rig))
        return Rig.default(sensors, root="")

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """``fallback_references`` by name."""
        return tuple(filter(None, map(str.strip, self.fallback_references.split(","))))

    def check_fallbacks(self, rig: Rig) -> None:
        """Check that a rig has every sensor that is to be fallen back to.

        Raises:
            Unim2Error: it lacks one.
        """
        unknown = [name for name in self.fallbacks if name not in rig.sensors]
        if unknown:
            raise Unim2Error(
                f"fallback_references: there is no {unknown[0]} to fall back to",
                expected=f"some of {', '.join(rig.sensors)}, which model and rig have",
                found=self.fallback_references,
                remedy=_REMEDY,
            )

    @property
    def matching(self) -> Matching | None:
        """What matches images; None: our synchronizer."""
        if self.fallbacks:
            return with_fallback(self.fallbacks)
        if self.sync == "unim2":
            return None
        return lambda rig: ApproximateSynchronizer(rig, self.sync_slop_s, self.sync_queue)


def changes(name: str) -> str:
    """When a parameter of the table may be changed."""
    extra = SegmentParameters.model_fields[name].json_schema_extra
    return str(extra["changes"]) if isinstance(extra, dict) else NEVER


class Parameters:
    """The parameters of one node and the values in force.

    Attributes:
        table: the values, validated where ``validate`` was called.
        rig: the rig with what the parameters change in it; None while not configured.
    """

    def __init__(
        self, node: Node, changed: Callable[[SegmentParameters, Rig | None], None]
    ) -> None:
        """Declare every parameter and take what the user gave.

        Args:
            node: to declare them on.
            changed: called with table and rig after a change at run time.

        Raises:
            Unim2Error: a value is out of range, or has another type.
        """
        self.rig: Rig | None = None
        self._node = node
        self._changed = changed
        self._given: dict[str, Any] = {}
        self._of_rig: list[str] = []
        for name, field in SegmentParameters.model_fields.items():
            when = changes(name)
            self._given[name] = self._declare(
                name, field.default, descriptor(field, when, read_only=when == NEVER)
            )
        self.table = SegmentParameters.model_construct(**self._given)
        node.add_on_set_parameters_callback(self._set)

    def validate(self) -> SegmentParameters:
        """The table, as a node that is to be configured needs it.

        Raises:
            Unim2Error: a value cannot be used, no model is given, or what is asked for is not
                installed.
        """
        try:
            self.table = SegmentParameters.model_validate(self._given)
        except ValidationError as error:
            problem = error.errors()[0]
            raise Unim2Error(
                f"parameter {problem['loc'][0]} cannot be used",
                expected=problem["msg"],
                found=repr(problem["input"]),
                remedy=_REMEDY,
            ) from error
        if not self.table.model:
            raise Unim2Error(
                "no model is given",
                expected="the parameter model: path of a bundle NAME.unim2",
                found="nothing",
                remedy="add --model NAME.unim2, or -p model:=NAME.unim2",
            )
        if self.table.sync == "approximate":
            message_filters()
            if self.table.fallbacks:
                raise Unim2Error(
                    "sync: approximate cannot do without a sensor",
                    expected="no fallback_references with it",
                    found=self.table.fallback_references,
                    remedy="set sync:=unim2, or leave fallback_references empty",
                )
        return self.table

    def adopt(self, rig: Rig) -> Rig:
        """Declare what may be changed of a rig, with its values as defaults.

        Returns:
            The rig with what the user gave instead.

        Raises:
            Unim2Error: a value has another type.
            RigError: a value is out of range.
        """
        self.forget()
        values = {}
        for name, (field, value) in _rig_parameters(rig).items():
            values[name] = self._declare(name, value, descriptor(field, RUNNING))
            self._of_rig.append(name)
        self.rig = _tuned(rig, values)
        return self.rig

    def forget(self) -> None:
        """Undeclare what ``adopt`` has declared; the node is not configured any more."""
        self.rig = None
        while self._of_rig:
            self._node.undeclare_parameter(self._of_rig.pop())

    def _declare(self, name: str, default: Any, described: ParameterDescriptor) -> Any:
        try:
            return self._node.declare_parameter(name, default, described).value
        except InvalidParameterValueException as error:
            raise Unim2Error(
                f"parameter {name} cannot be used",
                expected=described.additional_constraints,
                found=str(error),
                remedy=_REMEDY,
            ) from error
        except Exception as error:  # rclpy's parameter errors have no common base
            raise Unim2Error(
                "a parameter cannot be declared",
                expected="values of the declared types",
                found=str(error),
                remedy=_REMEDY,
            ) from error

    def _set(self, parameters: Iterable[Parameter[Any]]) -> SetParametersResult:
        """Check a change whole, then put it into force."""
        values = {parameter.name: parameter.value for parameter in parameters}
        table = {name: value for name, value in values.items() if name in self._given}
        tuned = {name: value for name, value in values.items() if name in self._of_rig}
        rig = self.rig
        try:
            if rig is not None:
                self._refuse_late(table)
                rig = _tuned(rig, tuned) if tuned else rig
            given = {**self._given, **table}
            # Unconfigured, the values are looked at together when the node is configured.
            checked = SegmentParameters.model_validate(given) if rig is not None else None
        except (ValidationError, Unim2Error) as error:
            return SetParametersResult(successful=False, reason=_reason(error))
        self._given = given
        if checked is not None and (table or tuned):
            self.table, self.rig = checked, rig
            self._changed(checked, rig)
        return SetParametersResult(successful=True)

    def _refuse_late(self, table: Mapping[str, Any]) -> None:
        late = [name for name in table if changes(name) != RUNNING]
        if late:
            raise Unim2Error(
                f"{late[0]} takes effect when the node is configured: clean it up first "
                "(ros2 lifecycle set NODE deactivate, then cleanup)",
                expected="the node unconfigured",
                found="the node configured",
                remedy="ros2 lifecycle set NODE deactivate, then cleanup",
            )
        model = table.get("model")
        if model is not None and not (Path(model) / MANIFEST).is_file():
            raise Unim2Error(
                f"no model bundle at {model!r}: there is no {MANIFEST} in it",
                expected="a directory NAME.unim2",
                found=f"no {MANIFEST}",
                remedy="mend the path; the model before goes on",
            )


def _rig_parameters(rig: Rig) -> dict[str, tuple[Any, Any]]:
    """Name of a parameter -> the field of the rig that it changes, and its value there."""
    found = {name: (Rig.model_fields[name], getattr(rig, name)) for name in RIG_FIELDS}
    for sensor, options in rig.sensors.items():
        for name in SENSOR_FIELDS:
            found[f"{sensor}.{name}"] = (Sensor.model_fields[name], getattr(options, name))
    return found


def _tuned(rig: Rig, values: Mapping[str, Any]) -> Rig:
    """A rig with other values.

    Raises:
        RigError: one is out of range.
    """
    content = rig.model_dump()
    for name, value in values.items():
        sensor, _, field = name.rpartition(".")
        (content["sensors"][sensor] if sensor else content)[field] = value
    return Rig.parse(content, source="the rig with these parameters")


def _reason(error: ValidationError | Unim2Error) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{problem['loc'][0]}: {problem['msg']}, found {problem['input']!r}"
    return error.found if isinstance(error, RigError) else error.what
