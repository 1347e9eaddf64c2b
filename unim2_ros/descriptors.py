"""What ROS is told about a parameter: type, range and words, from a pydantic field."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}


def value_type(field: FieldInfo) -> type:
    """bool, int, float or str; names to choose from are str."""
    annotation: Any = field.annotation
    return str if get_origin(annotation) is Literal else annotation


def bounds(field: FieldInfo) -> tuple[float | None, float | None]:
    """Least and largest value; None where there is no such bound."""
    found = {
        name: getattr(one, name)
        for one in field.metadata
        for name in ("ge", "le")
        if hasattr(one, name)
    }
    return found.get("ge"), found.get("le")


def constraints(field: FieldInfo) -> str:
    """Which values a field takes, in words; empty: any of its type."""
    if get_origin(field.annotation) is Literal:
        return f"one of {', '.join(get_args(field.annotation))}"
    least, largest = bounds(field)
    if least is None and largest is None:
        return ""
    if largest is None:
        return f"{least} or more"
    return f"{least} to {largest}"


def descriptor(field: FieldInfo, changes: str, *, read_only: bool = False) -> ParameterDescriptor:
    """Describe a parameter.

    Args:
        field: of the validated model.
        changes: when it may be changed.
        read_only: ROS is to refuse every change.
    """
    kind = value_type(field)
    described = ParameterDescriptor(
        type=_TYPES[kind],
        description=field.description or "",
        additional_constraints="; ".join(
            filter(None, [constraints(field), f"can be changed {changes}"])
        ),
        read_only=read_only,
    )
    least, largest = bounds(field)
    if least is not None and largest is not None:  # ROS knows only ranges with two ends
        if kind is int:
            described.integer_range = [IntegerRange(from_value=least, to_value=largest, step=1)]
        else:
            described.floating_point_range = [
                FloatingPointRange(from_value=float(least), to_value=float(largest))
            ]
    return described
