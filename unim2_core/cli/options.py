"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from unim2_core.data.drives import with_topics
from unim2_core.inference.backends import Backend, Device, Precision
from unim2_core.sensing.rig import SENSORS, Rig

RigFile = Annotated[
    Path | None,
    typer.Option("--rig", help="Rig file; without it topics are /SENSOR/image.", dir_okay=False),
]
Topics = Annotated[
    list[str] | None,
    typer.Option("--topic", help="SENSOR=TOPIC, e.g. rgb=/camera/color/image_raw; repeatable."),
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", help="Write the results here too, for machines.")
]
MAX_SEED = 2**31 - 1
"""What OpenCV's generator takes."""
BackendName = Annotated[
    Backend,
    typer.Option("--backend", help="What runs the graphs; auto: the first that passes the gate."),
]
PrecisionName = Annotated[
    Precision, typer.Option("--precision", help="What the graphs compute in.")
]
DeviceName = Annotated[
    Device, typer.Option("--device", help="Where the graphs run; auto: what the backend prefers.")
]

BackendOption = Annotated[
    Backend | None, typer.Option("--backend", help="As in the params file where it is left out.")
]
PrecisionOption = Annotated[
    Precision | None, typer.Option("--precision", help="As in the params file, else fp32.")
]
DeviceOption = Annotated[
    Device | None, typer.Option("--device", help="As in the params file, else auto.")
]
HalfAuxiliaries = Annotated[
    bool,
    typer.Option(
        "--half-auxiliaries", help="All sensors but the reference at half the resolution: faster."
    ),
]


def rig_from(file: Path | None, topics: Sequence[str] | None, root: str = "/") -> Rig:
    """The rig that the options describe.

    Args:
        file: the rig file, or None for the default topics.
        topics: ``SENSOR=TOPIC`` items that override it.
        root: of the default topics; empty: relative ones, that a node's namespace moves.

    Raises:
        typer.BadParameter: an item is malformed or names an unknown sensor.
        RigError: the file is not a rig.
    """
    rig = Rig.load(file) if file else Rig.default(root=root)
    changes = {}
    for item in topics or ():
        sensor, equals, topic = item.partition("=")
        if not equals or not topic or sensor not in SENSORS:
            raise typer.BadParameter(
                f"expected SENSOR=TOPIC with a sensor out of {', '.join(SENSORS)}, found {item!r}",
                param_hint="--topic",
            )
        changes[sensor] = topic
    return with_topics(rig, changes)


def size_from(text: str | None, multiple: int) -> tuple[int, int] | None:
    """Read ``HEIGHTxWIDTH``.

    Raises:
        typer.BadParameter: it is not two positive multiples of ``multiple``.
    """
    if text is None:
        return None
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        height = width = 0
    if min(height, width) <= 0 or height % multiple or width % multiple:
        raise typer.BadParameter(
            f"expected HEIGHTxWIDTH in multiples of {multiple}, found {text!r}",
            param_hint="--size",
        )
    return height, width
