"""What a person says of clusters: names, colours, which are one class, which are none."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from unim2_core.errors import ModelError
from unim2_core.model.bundle import UNLABELLED, Label, Manifest
from unim2_core.showing.palette import distinct_colors

Color = tuple[int, int, int]

LONGEST = 60
"""Characters of a name."""


@dataclass(frozen=True)
class Hint:
    """A name that labelled pictures suggest for a cluster.

    Attributes:
        name: of a class.
        share: of the cluster's labelled pixels that are of it, [0, 1].
        assigned: whether the class is this cluster's own, as no other's; else it is the one of
            most of the pixels, which another cluster stands for.
    """

    name: str
    share: float
    assigned: bool


@dataclass(frozen=True)
class Labelling:
    """The classes that clusters are served as; every change makes another one.

    A cluster that was merged into a class or is unknown keeps its own name and colour, for the
    case that it becomes a class again.

    Attributes:
        names: of each cluster.
        colors: of each cluster: red, green, blue.
        served: class id of each cluster: its own number, another cluster's, or 255 for unknown.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    served: tuple[int, ...]

    @classmethod
    def of(cls, manifest: Manifest) -> Labelling:
        """What a model says now."""
        count, labels = manifest.clusters, {label.id: label for label in manifest.labels}
        colors = list(distinct_colors(count))
        names = [_own_name(cluster) for cluster in range(count)]
        for identifier, label in labels.items():
            names[identifier], colors[identifier] = label.name, label.color
        return cls(tuple(names), tuple(colors), tuple(map(int, manifest.served[:count])))

    @property
    def labels(self) -> tuple[Label, ...]:
        """Of the classes that are served, for a manifest."""
        return tuple(
            Label(id=cluster, name=self.names[cluster], color=self.colors[cluster])
            for cluster, served in enumerate(self.served)
            if served == cluster
        )

    @property
    def served_as(self) -> dict[int, int]:
        """Cluster -> class, of those that are no class of their own, for a manifest."""
        return {own: served for own, served in enumerate(self.served) if own != served}

    def members(self, cluster: int) -> tuple[int, ...]:
        """All clusters of the class that a cluster is served as; only itself where unknown."""
        served = self._class_of(cluster)
        if served == UNLABELLED:
            return (cluster,)
        return tuple(own for own, other in enumerate(self.served) if other == served)

    def named(self, cluster: int, name: str) -> Labelling:
        """Name the class of a cluster; two classes of one name are one class.

        A cluster that was unknown becomes a class.

        Raises:
            ModelError: there is no such cluster, or this is no name.
        """
        name = checked_name(name)
        served = self._class_of(cluster)
        for label in self.labels:
            if label.name == name and label.id != served:
                if served == UNLABELLED:
                    return self._serving((cluster,), label.id)
                return self.merged((label.id, cluster))
        known = self._serving((cluster,), cluster) if served == UNLABELLED else self
        return known._with("names", known.served[cluster], name)

    def colored(self, cluster: int, color: Color) -> Labelling:
        """Give the class of a cluster a colour.

        Raises:
            ModelError: there is no such cluster, or it is unknown.
        """
        served = self._class_of(cluster)
        if served == UNLABELLED:
            raise ModelError(
                f"cluster {cluster} has no colour",
                expected="a class",
                found="unknown",
                remedy=f"name it first: --set {cluster}=NAME",
            )
        return self._with("colors", served, color)

    def merged(self, clusters: Sequence[int]) -> Labelling:
        """Make one class of several clusters and all that are served with them.

        It has the name, the colour and the number of the first; where that is unknown, all become
        unknown.

        Raises:
            ModelError: there is no such cluster.
        """
        every = {member for cluster in clusters for member in self.members(cluster)}
        return self._serving(every, self._class_of(clusters[0]))

    def unknown(self, cluster: int) -> Labelling:
        """Serve the class of a cluster as unlabelled.

        Raises:
            ModelError: there is no such cluster.
        """
        return self._serving(self.members(cluster), UNLABELLED)

    def separated(self, cluster: int) -> Labelling:
        """Make a cluster a class of its own; those that were served as it stay together.

        Raises:
            ModelError: there is no such cluster.
        """
        others = [member for member in self.members(cluster) if member != cluster]
        found = self
        if others and self.served[cluster] == cluster:
            heir, own = others[0], _own_name(cluster)
            name = _own_name(heir) if self.names[cluster] == own else self.names[cluster]
            found = found._serving(others, heir)
            found = found._with("names", cluster, own)
            found = found._with("colors", cluster, distinct_colors(len(self.names))[cluster])
            found = found._with("colors", heir, self.colors[cluster])
            found = found._with("names", heir, name)._with_free_name(heir)
        return found._serving((cluster,), cluster)._with_free_name(cluster)

    def _with_free_name(self, cluster: int) -> Labelling:
        """The name that it has where no other class has it, else one of its own."""
        taken = {label.name for label in self.labels if label.id != cluster}
        own = _own_name(cluster)
        more = (f"{own} ({number})" for number in itertools.count(2))
        names = itertools.chain((self.names[cluster], own), more)
        return self._with("names", cluster, next(name for name in names if name not in taken))

    def _class_of(self, cluster: int) -> int:
        if not 0 <= cluster < len(self.served):
            raise ModelError(
                f"there is no cluster {cluster}",
                expected=f"a number from 0 to {len(self.served) - 1}",
                found=str(cluster),
                remedy="list them with: unim2 name MODEL --list",
            )
        return self.served[cluster]

    def _serving(self, clusters: Sequence[int] | set[int], served: int) -> Labelling:
        chosen = set(clusters)
        table = (served if own in chosen else was for own, was in enumerate(self.served))
        return replace(self, served=tuple(table))

    def _with(self, what: str, cluster: int, value: str | Color) -> Labelling:
        changed = list(getattr(self, what))
        changed[cluster] = value
        return replace(self, **{what: tuple(changed)})


def checked_name(name: str) -> str:
    """A name as it is stored: composed characters, single spaces.

    Raises:
        ModelError: nothing is left of it, it is too long, or it has characters that do not print.
    """
    tidy = " ".join(unicodedata.normalize("NFC", name).split())
    if not 0 < len(tidy) <= LONGEST or not tidy.isprintable():
        raise ModelError(
            "this is no name for a class",
            expected=f"1 to {LONGEST} characters that print",
            found=repr(name[: 2 * LONGEST]),
            remedy="choose another name",
        )
    return tidy


def _own_name(cluster: int) -> str:
    return f"cluster {cluster}"


class Edits:
    """A labelling as it was and became, step by step.

    Attributes:
        saved: what the model on disk says.
    """

    def __init__(self, labelling: Labelling) -> None:
        self.saved = labelling
        self._states = [labelling]
        self._index = 0

    @property
    def now(self) -> Labelling:
        """What it is now."""
        return self._states[self._index]

    @property
    def can_undo(self) -> bool:
        """Whether there is a step before."""
        return self._index > 0

    @property
    def can_redo(self) -> bool:
        """Whether a step was undone."""
        return self._index < len(self._states) - 1

    def change(self, how: Callable[[Labelling], Labelling]) -> None:
        """Make a step; what was undone before is forgotten. What changes nothing is no step."""
        changed = how(self.now)
        if changed != self.now:
            self._states[self._index + 1 :] = [changed]
            self._index += 1

    def undo(self) -> None:
        """Go a step back, where there is one."""
        self._index = max(self._index - 1, 0)

    def redo(self) -> None:
        """Go a step forward, where there is one."""
        self._index = min(self._index + 1, len(self._states) - 1)
