"""Message types of a bag: the definitions that it stores, the standard ones where it has none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

from rosbags.convert.converter import (
    STATIC_MSGTYPE_RENAMES,
    is_same_wireformat,
    migrate_bytes,
)
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from unim2_core.errors import BagError

NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, "")
FORMATS = {
    "ros2msg": MessageDefinitionFormat.MSG,
    "ros2idl": MessageDefinitionFormat.IDL,
    "omgidl": MessageDefinitionFormat.IDL,
}
"""Encoding of a definition, as files name it, -> what it is."""
HEADER = "std_msgs/msg/Header"

Standing = Literal["standard", "stored", "missing"]
"""Where a type comes from: every ROS 2 has it, only this bag defines it, or nobody does."""


@lru_cache(maxsize=1)
def standard_types() -> Any:
    """The typestore of the messages that come with ROS 2.

    Humble's, because its sqlite3 bags are the last ones that store no definitions.
    """
    return get_typestore(Stores.ROS2_HUMBLE)


def standing(msgtype: str, definition: MessageDefinition) -> Standing:
    """Say whether messages of a type can be decoded, and by whose definition."""
    if msgtype in standard_types().fielddefs:
        return "standard"
    try:
        typestore_for(msgtype, definition)
    except BagError:
        return "missing"
    return "stored"


@lru_cache(maxsize=512)
def typestore_for(msgtype: str, definition: MessageDefinition) -> Any:
    """The typestore that decodes one type as the bag defines it.

    Each definition gets a store of its own, so that two bags, or two topics, may disagree.

    Raises:
        BagError: the type is not standard, and its definition is missing or cannot be parsed.
    """
    standard = standard_types()
    if definition.format == MessageDefinitionFormat.NONE:
        if msgtype in standard.fielddefs:
            return standard
        raise _undefined(msgtype, "none")
    try:
        types = _parse(msgtype, definition)
        if all(_fields(types[name]) == _fields(standard.fielddefs.get(name)) for name in types):
            return standard
        store = get_typestore(Stores.EMPTY)
        store.register(types)
        # Fails here, and not at the first message, where a type that it uses is missing.
        store.get_msgdef(msgtype)
    # A parser of foreign text: besides TypesysError it raises whatever its grammar trips over.
    except Exception as error:
        raise _undefined(msgtype, f"one that cannot be used ({error!r})") from error
    return store


def has_header(msgtype: str, definition: MessageDefinition = NO_DEFINITION) -> bool:
    """Whether messages of this type start with a std_msgs/Header; False where unknown."""
    try:
        fields = typestore_for(msgtype, definition).fielddefs[msgtype][1]
    except BagError:
        return False
    return bool(fields) and fields[0][1] == (Nodetype.NAME, HEADER)


@dataclass(frozen=True)
class Ros1Conversion:
    """How messages of a ROS 1 type become CDR.

    Attributes:
        type: name of the ROS 2 type.
        definition: its definition.
        convert: serialised ROS 1 bytes -> CDR bytes.
    """

    type: str
    definition: MessageDefinition
    convert: Callable[[bytes], memoryview]


@lru_cache(maxsize=512)
def ros1_conversion(msgtype: str, definition: MessageDefinition) -> Ros1Conversion:
    """Find how to convert a ROS 1 type, standard or not, to ROS 2.

    Raises:
        BagError: the definition in the bag cannot be parsed.
    """
    name = STATIC_MSGTYPE_RENAMES.get(msgtype, msgtype)
    target = standard_types()
    source = get_typestore(Stores.EMPTY)
    try:
        source.register(_parse(msgtype, definition))
        if name not in target.fielddefs:
            text, _ = source.generate_msgdef(msgtype, ros_version=2)
            # ROS 1 counts messages in the header (seq), ROS 2 does not.
            types = {**get_types_from_msg(text, name), HEADER: target.fielddefs[HEADER]}
            target = get_typestore(Stores.EMPTY)
            target.register(types)
        same = is_same_wireformat(source, target, msgtype, name)
        text, _ = target.generate_msgdef(name, ros_version=2)
    except Exception as error:
        raise _undefined(msgtype, f"one that cannot be converted ({error})") from error
    convert = (
        partial(target.ros1_to_cdr, typename=name)
        if same
        else partial(migrate_bytes, source, target, msgtype, name, {}, src_is2=False, dst_is2=True)
    )
    return Ros1Conversion(name, MessageDefinition(MessageDefinitionFormat.MSG, text), convert)


def _parse(msgtype: str, definition: MessageDefinition) -> dict[str, Any]:
    if definition.format == MessageDefinitionFormat.MSG:
        return dict(get_types_from_msg(definition.data, msgtype))
    types: dict[str, Any] = {}
    # rosbag2 joins the files of a type by a rule and a line "IDL: name".
    for part in definition.data.split("=" * 80 + "\n"):
        if part:
            types.update(
                get_types_from_idl(part.split("\n", 1)[1] if part[:4] == "IDL:" else part)
            )
    return types


def _fields(entry: Any) -> Any:
    return None if entry is None else [tuple(field) for field in entry[1]]


def _undefined(msgtype: str, found: str) -> BagError:
    return BagError(
        f"messages of type {msgtype} cannot be decoded",
        expected="a standard ROS 2 type, or its definition stored in the bag",
        found=found,
        remedy="record again as mcap, which stores definitions, or leave this topic out",
    )
