"""The node's parameters: one validated table, declared to ROS from its own fields."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.node import Node

from unim2_core.errors import Unim2Error
from unim2_core.inference.backends import AUTO, Backend, Precision
from unim2_core.sensing.rig import Rig


class SegmentParameters(BaseModel):
    """Parameters of the node ``segment``; all are read at start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("", description="path of the model bundle, NAME.unim2; required")
    rig: str = Field(
        "", description="path of the rig file; empty: <sensor>/image, aligned sensors"
    )
    backend: Backend = Field(AUTO, description="what runs the graphs; auto: the first that passes")
    precision: Precision = Field("fp32", description="what the graphs compute in")
    half_auxiliaries: bool = Field(
        False, description="all sensors but the reference at half the resolution: faster"
    )
    threads: int = Field(0, ge=0, le=256, description="cores for the engine; 0: all")
    overlay_alpha: float = Field(0.5, ge=0, le=1, description="share of class colour in overlay")
    lazy: bool = Field(True, description="compute only what somebody subscribes to")

    def load_rig(self, sensors: tuple[str, ...]) -> Rig:
        """The rig of the file, or the default one with relative topics for these sensors."""
        if self.rig:
            return Rig.load(Path(self.rig))
        return Rig.default(sensors, root="")


def declare(node: Node) -> SegmentParameters:
    """Declare every parameter, read and validate what the user gave.

    Raises:
        Unim2Error: a value is out of range, or a parameter has another type.
    """
    values = {}
    try:
        for name, field in SegmentParameters.model_fields.items():
            descriptor = ParameterDescriptor(description=field.description or "", read_only=True)
            values[name] = node.declare_parameter(name, field.default, descriptor).value
        parameters = SegmentParameters.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise Unim2Error(
            f"parameter {problem['loc'][0]} cannot be used",
            expected=problem["msg"],
            found=repr(problem["input"]),
            remedy="mend it in the params file or on the command line",
        ) from error
    except Exception as error:  # rclpy's parameter errors have no common base
        raise Unim2Error(
            "a parameter cannot be declared",
            expected="values of the declared types",
            found=str(error),
            remedy="mend it in the params file or on the command line",
        ) from error
    if not parameters.model:
        raise Unim2Error(
            "no model is given",
            expected="the parameter model: path of a bundle NAME.unim2",
            found="nothing",
            remedy="add --model NAME.unim2, or -p model:=NAME.unim2",
        )
    return parameters
