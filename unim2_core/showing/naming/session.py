"""Naming the clusters of one model: what is known of them, what was changed, and saving it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from unim2_core.model.bundle import UNLABELLED, Bundle
from unim2_core.model.relabelling import relabelled
from unim2_core.showing.naming.clusters import ClusterFacts
from unim2_core.showing.naming.gallery import Gallery
from unim2_core.showing.naming.labelling import Color, Edits, Hint, Labelling
from unim2_core.showing.naming.spots import KINDS

Channel = Annotated[int, Field(ge=0, le=255)]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Naming(_Request):
    """Name the class of a cluster."""

    do: Literal["name"]
    cluster: int
    name: str

    def change(self, labelling: Labelling) -> Labelling:
        """Make the step."""
        return labelling.named(self.cluster, self.name)


class Coloring(_Request):
    """Give the class of a cluster a colour."""

    do: Literal["color"]
    cluster: int
    color: tuple[Channel, Channel, Channel]

    def change(self, labelling: Labelling) -> Labelling:
        """Make the step."""
        return labelling.colored(self.cluster, self.color)


class Merging(_Request):
    """Make one class of several clusters; the first gives its name."""

    do: Literal["merge"]
    clusters: tuple[int, ...] = Field(min_length=2)

    def change(self, labelling: Labelling) -> Labelling:
        """Make the step."""
        return labelling.merged(self.clusters)


class Single(_Request):
    """Serve a class as unlabelled, or make a cluster a class of its own."""

    do: Literal["unknown", "separate"]
    cluster: int

    def change(self, labelling: Labelling) -> Labelling:
        """Make the step."""
        if self.do == "unknown":
            return labelling.unknown(self.cluster)
        return labelling.separated(self.cluster)


class Command(_Request):
    """Go back or forth, or save."""

    do: Literal["undo", "redo", "save"]


class Request(RootModel[Naming | Coloring | Merging | Single | Command]):
    """What the page asks for."""

    root: Naming | Coloring | Merging | Single | Command = Field(discriminator="do")


class NamingSession:
    """One model, its gallery, and the steps that were made; safe to be used by threads.

    Attributes:
        bundle: the version that was opened or saved last.
        gallery: crops of each cluster.
        edits: the steps.
    """

    def __init__(
        self,
        bundle: Bundle,
        gallery: Gallery,
        facts: ClusterFacts,
        hints: Mapping[int, Hint] | None = None,
    ) -> None:
        self.bundle, self.gallery = bundle, gallery
        self.edits = Edits(Labelling.of(bundle.manifest))
        self._facts, self._hints = facts, hints or {}
        self._lock = threading.Lock()

    def ask(self, request: Request) -> dict[str, Any]:
        """Make a step, and say how things are then.

        Raises:
            Unim2Error: it is not possible; nothing has changed.
        """
        wanted = request.root
        with self._lock:
            if not isinstance(wanted, Command):
                self.edits.change(wanted.change)
            elif wanted.do == "save":
                self._save()
            else:
                {"undo": self.edits.undo, "redo": self.edits.redo}[wanted.do]()
            return self._state()

    def state(self) -> dict[str, Any]:
        """How things are, JSON types only."""
        with self._lock:
            return self._state()

    def _save(self) -> None:
        now = self.edits.now
        self.bundle = relabelled(self.bundle, now.labels, now.served_as)
        self.edits.saved = now

    def _state(self) -> dict[str, Any]:
        now, edits = self.edits.now, self.edits
        return {
            "clusters": [
                {"served": served, "name": name, "color": list(color)}
                for served, name, color in zip(now.served, now.names, now.colors, strict=True)
            ],
            "changed": edits.now != edits.saved,
            "can_undo": edits.can_undo,
            "can_redo": edits.can_redo,
            "version": self.bundle.version,
        }

    def about(self) -> dict[str, Any]:
        """What does not change: the model and what is known of its clusters, JSON types only."""
        facts, gallery = self._facts, self.gallery
        merges: dict[int, list[dict[str, float]]] = {}
        for first, second, affinity in facts.merges():
            for one, other in ((first, second), (second, first)):
                merges.setdefault(one, []).append(_entry(other, affinity))
        return {
            "model": self.bundle.manifest.name,
            "summary": self.bundle.manifest.summary,
            "path": str(self.bundle.path),
            "modalities": list(gallery.modalities),
            "clusters": [
                {
                    "share": round(float(facts.share[cluster]), 5),
                    "confidence": round(float(facts.confidence[cluster]), 3),
                    "pictures": int(facts.pictures[cluster]),
                    "columns": {kind: gallery.columns.get((cluster, kind), 0) for kind in KINDS},
                    "alike": _entries(facts.alike(cluster)),
                    "touching": _entries(facts.neighbours(cluster)),
                    "merges": merges.get(cluster, []),
                    "hint": vars(hint) if (hint := self._hints.get(cluster)) else None,
                }
                for cluster in range(len(facts.share))
            ],
        }

    def unsaved(self) -> list[str]:
        """Options of ``unim2 name`` that make what was not saved."""
        return options_between(self.edits.saved, self.edits.now)


def options_between(before: Labelling, after: Labelling) -> list[str]:
    """Options of ``unim2 name`` that turn a labelling into another one, in their order.

    Args:
        before: where to begin.
        after: where to end.
    """
    found: list[str] = []
    differ = [own for own, served in enumerate(after.served) if before.served[own] != served]
    for own in differ:
        if before.served[own] != own:
            before = before.separated(own)
            found += ["--separate", str(own)]
    for own in differ:
        served = after.served[own]
        if served == UNLABELLED:
            before = before.unknown(own)
            found += ["--unknown", str(own)]
        elif served != own:
            before = before.merged((served, own))
            found += ["--merge", f"{served},{own}"]
    for own, name in _in_order({label.id: label.name for label in after.labels}, before):
        found += ["--set", f"{own}={name}"]
    for label in after.labels:
        if label.color != before.colors[label.id]:
            found += ["--color", f"{label.id}={hex_color(label.color)}"]
    return found


def _in_order(names: dict[int, str], before: Labelling) -> Iterator[tuple[int, str]]:
    """Namings that never give a class the name that another one still has."""
    have = {label.id: label.name for label in before.labels}
    while left := [own for own, name in names.items() if have[own] != name]:
        free = [own for own in left if names[own] not in have.values()]
        own = (free or left)[0]
        have[own] = names[own] if free else f"cluster {own} for now"  # two swap their names
        yield own, have[own]


def hex_color(color: Color) -> str:
    """As in HTML: ``#ff8800``."""
    return "#" + "".join(f"{value:02x}" for value in color)


def _entry(cluster: int, value: float) -> dict[str, float]:
    return {"cluster": cluster, "value": round(value, 3)}


def _entries(pairs: Sequence[tuple[int, float]]) -> list[dict[str, float]]:
    return [_entry(cluster, value) for cluster, value in pairs]
