"""Which sensor a topic belongs to, guessed from its name, frame and images."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unim2_core.sensing.bag_summary import ImageForm, TopicSummary

HINTS = (
    # In this order: "aligned_depth_to_color" is depth, "polarization/rgb" is polarization.
    ("polarization", r"polar\w*|pol|aolp|dolp|stokes"),
    ("depth", r"\w*depth\w*"),
    ("thermal", r"therm\w*|lwir|flir|boson|lepton|optris|seek"),
    ("nir", r"nir|infra|nearir"),
    ("thermal", r"ir|infrared"),
    ("rgb", r"rgb\w*|colou?r|bgr|visible"),
)
AMBIGUOUS = {"ir", "infrared"}
"""Long-wave on some robots, near infrared on others."""

CENTIKELVIN = (23_300, 42_300)
"""Counts of -40 to 150 degrees Celsius; nearly every count of a scene lies there."""
DECIKELVIN = (2_330, 4_230)
IN_TOPIC, IN_FRAME, BY_FORM = 100, 50, 10


@dataclass(frozen=True)
class Guess:
    """What a topic is taken for.

    Attributes:
        topic: the topic.
        sensor: name of the sensor, empty where its images fit none.
        score: how sure it is, to choose among several.
        reason: why, for a person.
        doubtful: the name alone does not decide; a person should look.
    """

    topic: TopicSummary
    sensor: str
    score: int
    reason: str
    doubtful: bool = False


def guess(topic: TopicSummary) -> Guess:
    """Guess the sensor of an image topic."""
    form = topic.image
    if form is None:
        return Guess(topic, "", 0, "its images cannot be decoded")
    named = _hint(topic.info.name, IN_TOPIC) or _hint(topic.frame_id, IN_FRAME)
    if named is None:
        return _by_form(topic, form)
    sensor, word, score = named
    where = "topic" if score == IN_TOPIC else "frame id"
    reason = f"the {where} says {word}"
    doubtful = False
    if word in AMBIGUOUS:
        sensor, why = _infrared(form)
        doubtful = not why
        reason += f", and {why or 'that may be thermal or near infrared'}"
    if problem := _misfit(sensor, form):
        return Guess(topic, "", 0, f"{reason}, but {problem}")
    return Guess(topic, sensor, score + _preference(topic), reason, doubtful)


def radiometric(form: ImageForm) -> str:
    """Conversion of the rig that the counts of a thermal camera hint at, or ``relative``."""
    if form.low is None or form.high is None or form.dtype != "uint16":
        return "relative"
    for conversion, (lowest, highest) in (
        ("centikelvin", CENTIKELVIN),
        ("decikelvin", DECIKELVIN),
    ):
        if lowest <= form.low and form.high <= highest:
            return conversion
    return "relative"


def _hint(name: str, score: int) -> tuple[str, str, int] | None:
    words = re.findall(r"[a-z]+", name.lower())
    for sensor, pattern in HINTS:
        for word in words:
            if re.fullmatch(pattern, word):
                return sensor, word, score
    return None


def _by_form(topic: TopicSummary, form: ImageForm) -> Guess:
    score = BY_FORM + _preference(topic)
    if form.channels == 3:
        return Guess(topic, "rgb", score, f"{form.encoding} is a colour encoding")
    if form.dtype == "uint8":
        return Guess(topic, "rgb", score - 5, "a grey camera, nothing says of what", doubtful=True)
    # Decikelvin of a room would be 3 m of a depth camera.
    if radiometric(form) == "centikelvin":
        reason = f"counts from {form.low:.0f} to {form.high:.0f} look like centikelvin"
        return Guess(topic, "thermal", score, reason, doubtful=True)
    if "mono16" in form.encoding:
        return Guess(topic, "thermal", score, "mono16, nothing says of what", doubtful=True)
    return Guess(topic, "depth", score, f"{form.encoding} is what depth cameras send", True)


def _infrared(form: ImageForm) -> tuple[str, str]:
    """Sensor behind a name like ``ir``, and what decides it, empty where nothing does."""
    if radiometric(form) != "relative":
        return "thermal", f"its counts look like {radiometric(form)}"
    if form.dtype == "uint8":
        return "nir", f"{form.encoding} is what near infrared cameras send"
    return "thermal", ""


def _misfit(sensor: str, form: ImageForm) -> str:
    """Why images of this form cannot be of that sensor, empty where they can."""
    found = f"{form.encoding} is"
    if sensor in ("thermal", "nir", "depth") and form.channels == 3:
        return f"{found} in colour, not what the sensor measured"
    if sensor == "depth" and form.dtype == "uint8":
        return f"{found} eight bits, a picture of depth"
    if sensor == "rgb" and form.dtype not in ("uint8", "uint16"):
        return f"{found} neither 8 nor 16 bits"
    if sensor == "polarization" and form.channels == 3 and "bayer" not in form.encoding:
        return f"{found} in colour, not the mosaic of the sensor"
    return ""


def _preference(topic: TopicSummary) -> int:
    """A little for what is better among topics of one sensor."""
    name = topic.info.name
    return (
        3 * ("rect" in name)
        + 4 * ("aligned" in name or "registered" in name)
        - 5 * name.endswith(("/compressed", "/compressedDepth"))
    )
