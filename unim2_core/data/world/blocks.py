"""Blocks of the street: what lies on the ground and what stands on it, 48 m at a time."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import objects
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.materials import MATERIAL_IDS
from unim2_core.data.world.people import Pedestrian
from unim2_core.data.world.solids import Solid
from unim2_core.data.world.street import BLOCK_M, PARKING_M, Street

CELL_M = 0.04
"""Size of a cell of the ground map."""
HALF_M = 40.0
"""The ground map reaches this far to both sides of the centre line."""
LAMP_PITCH_M = 12.0
"""Street lamps alternate between the two sides at this distance."""
LAMP_HEIGHT_M = 5.5
VERGE_PATCHES = ("lawn", "meadow", "earth", "gravel")

Rng = np.random.Generator
Ground = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Block:
    """One block, straightened: x along the street from its beginning, y from the centre line.

    Attributes:
        ground: (rows, columns) uint8 material ids; row 0 is at y = -HALF_M.
        items: what stands there: a solid in its own frame, its place (x, y) and its yaw
            relative to the street.
    """

    ground: Ground
    items: tuple[tuple[Solid, float, float, float], ...]


class BlockBuilder:
    """Lays out one block from a seed."""

    def __init__(
        self, seed: tuple[int, ...], index: int, street: Street, environment: Environment
    ) -> None:
        # Negative numbers are no seed; blocks begin behind the start.
        self._rng = np.random.default_rng([*seed, 41, index + 1000])
        self._area = np.random.default_rng([*seed, 42, (index + 1000) // 3])
        self._street = street
        self._env = environment
        shape = (round(2 * HALF_M / CELL_M), round(BLOCK_M / CELL_M))
        self._ground: Ground = np.full(shape, MATERIAL_IDS["lawn"], np.uint8)
        self._items: list[tuple[Solid, float, float, float]] = []
        # One surface and one pavement for several blocks.
        self._surface = str(
            self._area.choice(("asphalt", "asphalt_old", "cobbles"), p=(0.45, 0.4, 0.15))
        )

    def build(self) -> Block:
        """The finished block."""
        # What lies along the street, and how far from the sidewalk people stand there.
        kinds = ((self._city, 0.0), (self._suburb, 4.0), (self._park, 4.0), (self._canal, 0.0))
        for side in (1, -1):
            roadside, reach = kinds[self._rng.choice(4, p=(0.33, 0.25, 0.2, 0.22))]
            self._road_and_sidewalk(side)
            roadside(side)
            self._parked_cars(side)
            self._furniture(side)
            self._bystanders(side, reach)
        self._markings()
        self._puddles()
        return Block(self._ground, tuple(self._items))

    # ground

    def _fill(self, x0: float, x1: float, y0: float, y1: float, material: str) -> None:
        low, high = sorted((y0, y1))
        rows = slice(round((low + HALF_M) / CELL_M), round((high + HALF_M) / CELL_M))
        self._ground[rows, round(x0 / CELL_M) : round(x1 / CELL_M)] = MATERIAL_IDS[material]

    def _blob(self, x: float, y: float, rx: float, ry: float, material: str) -> None:
        """Fill a smooth closed outline about (x, y)."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        wave = self._rng.uniform(0.05, 0.16, 3)[:, None]
        phase = self._rng.uniform(0, 2 * np.pi, 3)[:, None]
        radius = 1 + np.sum(wave * np.sin(np.array([[2], [3], [5]]) * angle + phase), 0)
        points = np.stack(
            [x + rx * radius * np.cos(angle), y + HALF_M + ry * radius * np.sin(angle)]
        )
        cells = np.rint(points.T / CELL_M).astype(np.int32)
        cv2.fillPoly(self._ground, [cells], MATERIAL_IDS[material])

    def _road_and_sidewalk(self, side: int) -> None:
        kerb, walk, edge = (
            f(side) for f in (self._street.kerb, self._street.walk, self._street.edge)
        )
        pavement = self._area.choice(("slabs", "pavers", "slabs_dark"), p=(0.4, 0.3, 0.3))
        verge = self._rng.choice(VERGE_PATCHES, p=(0.35, 0.25, 0.25, 0.15))
        self._fill(0, BLOCK_M, 0, side * kerb, self._surface)
        self._fill(0, BLOCK_M, side * kerb, side * walk, str(verge))
        self._fill(0, BLOCK_M, side * kerb, side * (kerb + 0.16), "slabs")
        if walk - kerb > 0.5:
            for _ in range(3):
                x, patch = self._rng.uniform(4, BLOCK_M - 4), str(self._rng.choice(VERGE_PATCHES))
                self._blob(x, side * (kerb + walk) / 2, 2.5, (walk - kerb) * 0.3, patch)
            self._trees(side, kerb + 0.5, walk - 0.4, int(self._rng.integers(0, 5)))
        self._fill(0, BLOCK_M, side * walk, side * edge, str(pavement))

    def _markings(self) -> None:
        left, right = self._street.kerb(1), self._street.kerb(-1)
        for x in np.arange(0, BLOCK_M, 8.0):
            self._fill(x, x + 3.5, -0.07, 0.07, "marking")
        if self._rng.random() < 0.6:
            for y in (2.75, -2.75):
                self._fill(0, BLOCK_M, y - 0.06, y + 0.06, "marking")
        if self._rng.random() < 0.35:
            x = self._rng.uniform(5, BLOCK_M - 9)
            for y in np.arange(-right + 0.4, left - 0.5, 1.0):
                self._fill(x, x + 3.2, y, y + 0.5, "marking")

    def _puddles(self) -> None:
        rng = self._rng
        for _ in range(rng.poisson(9 * self._env.wet)):
            side = int(rng.choice((1, -1)))
            y = side * rng.uniform(0.5, self._street.edge(side))
            rx = rng.uniform(0.8, 4.0)
            self._blob(rng.uniform(3, BLOCK_M - 3), y, rx, rx * rng.uniform(0.25, 0.55), "puddle")

    # roadsides

    def _put(self, solid: Solid, x: float, y: float, yaw: float = 0.0) -> None:
        self._items.append((solid, x, y, yaw))

    def _row_of_houses(self, side: int, front: float, tall: bool) -> None:
        """Houses whose fronts stand ``front`` metres from the centre line."""
        rng = self._rng
        x = rng.uniform(0, 2)
        while x < BLOCK_M - 6:
            width = min(rng.uniform(7, 15), BLOCK_M - x)
            storeys = int(rng.integers(3, 7)) if tall else int(rng.integers(1, 3))
            solid = objects.building(rng, width, rng.uniform(7, 10), storeys,
                                     gable=not tall or rng.random() < 0.25)  # fmt: skip
            setback = front + rng.uniform(0, 0.8 if tall else 3.0)
            # The front faces the street: to -y on the left, turned round on the right.
            self._put(
                solid, x if side > 0 else x + width, side * setback, 0 if side > 0 else np.pi
            )
            x += width + (rng.choice((0.1, 3.0), p=(0.65, 0.35)) if tall else rng.uniform(3, 8))

    def _city(self, side: int) -> None:
        edge = self._street.edge(side)
        pavement = str(self._rng.choice(("slabs", "gravel", "earth")))
        self._fill(0, BLOCK_M, side * edge, side * (edge + 1.6), pavement)
        self._row_of_houses(side, edge + self._rng.uniform(0.3, 1.6), tall=True)
        if self._rng.random() < 0.6:
            self._trees(side, edge - 0.5, edge - 0.3, 3)

    def _suburb(self, side: int) -> None:
        rng, dry = self._rng, self._env.dry
        edge = self._street.edge(side)
        self._yard(side, edge, HALF_M)
        border = edge + rng.uniform(0.4, 1.6)
        x = 0.0
        while x < BLOCK_M - 3:
            length = min(rng.uniform(6, 13), BLOCK_M - x)
            kind = rng.choice(4)
            place = (x, side * border)
            if kind < 2:
                self._put(objects.fence(rng, length, bars=bool(kind)), *place)
            elif kind == 2:
                self._put(objects.hedge(rng, length, dry), *place)
            x += length + rng.uniform(0, 2.5)
        self._row_of_houses(side, border + rng.uniform(3.5, 7), tall=False)
        for x in self._spread(2):
            self._fill(x - 1.4, x + 1.4, side * edge, side * (border + 6), "gravel")
            solid = objects.car(rng, driving=False, lights=False)
            self._put(solid, x, side * (border + 2.6), rng.choice((-1, 1)) * np.pi / 2)
        self._trees(side, border + 1.2, border + 4, int(rng.integers(1, 4)))
        self._bushes(side, border + 0.8, border + 4, int(rng.integers(2, 6)))

    def _park(self, side: int) -> None:
        rng = self._rng
        edge = self._street.edge(side)
        self._yard(side, edge, HALF_M)
        path = edge + rng.uniform(1.5, 4)
        self._fill(0, BLOCK_M, side * path, side * (path + rng.uniform(1.5, 2.5)),
                   str(rng.choice(("gravel", "earth"))))  # fmt: skip
        if rng.random() < 0.75:
            self._blob(rng.uniform(12, 36), side * (path + rng.uniform(6, 9)),
                       rng.uniform(6, 11), rng.uniform(2.5, 4.5), "pond")  # fmt: skip
        if rng.random() < 0.5:
            self._put(objects.fence(rng, BLOCK_M / 2, bars=True), rng.uniform(0, 20),
                      side * (edge + 0.3))  # fmt: skip
        self._trees(side, path + 3, HALF_M - 6, 9)
        self._trees(side, edge + 0.6, edge + 1.2, 2)
        self._bushes(side, edge + 1, path + 9, 5)

    def _canal(self, side: int) -> None:
        rng = self._rng
        edge = self._street.edge(side)
        bank = edge + rng.uniform(0.3, 1.5)
        self._fill(0, BLOCK_M, side * edge, side * bank, str(rng.choice(("gravel", "lawn"))))
        width = rng.uniform(6, 10)
        self._fill(0, BLOCK_M, side * bank, side * (bank + width), "pond")
        self._yard(side, bank + width, HALF_M)
        if rng.random() < 0.7:
            self._put(objects.fence(rng, BLOCK_M, bars=True), 0, side * (edge + 0.15))
        self._row_of_houses(side, bank + width + rng.uniform(2, 6), tall=rng.random() < 0.5)
        self._trees(side, bank + width + 0.7, bank + width + 2, 4)

    def _yard(self, side: int, low: float, high: float) -> None:
        """Grass of one kind with patches of another and of bare earth."""
        rng = self._rng
        first, second = rng.permutation(("lawn", "meadow"))
        if rng.random() < 0.25:
            first = str(rng.choice(("earth", "gravel")))
        self._fill(0, BLOCK_M, side * low, side * high, str(first))
        for material in (second, "earth", "earth", second, "gravel"):
            rx, ry = rng.uniform(1.5, 5.0), rng.uniform(0.8, 2.0)
            # The outline swells by up to 1.5: stay off the sidewalk.
            y = side * (low + 1.5 * ry + rng.uniform(0, 8))
            self._blob(rng.uniform(4, BLOCK_M - 4), y, rx, ry, str(material))

    def _trees(self, side: int, low: float, high: float, count: int) -> None:
        for x in self._spread(count):
            y = side * self._rng.uniform(low, high)
            self._put(objects.tree(self._rng, self._env.dry), x, y, self._rng.uniform(0, 6))

    def _bushes(self, side: int, low: float, high: float, count: int) -> None:
        for x in self._spread(count):
            y = side * self._rng.uniform(low, high)
            self._put(objects.bush(self._rng, self._env.dry), x, y, self._rng.uniform(0, 6))

    def _spread(self, count: int) -> NDArray[np.float64]:
        return (np.arange(count) + self._rng.uniform(0.15, 0.85, count)) * (
            BLOCK_M / max(count, 1)
        )

    # what stands at the kerb

    def _parked_cars(self, side: int) -> None:
        kerb = self._street.kerb(side)
        if side < 0 or kerb < PARKING_M + 2:
            return  # the robot keeps to the right kerb
        x = self._rng.uniform(1, 6)
        while x < BLOCK_M - 3:
            if self._rng.random() < 0.65:
                solid = objects.car(self._rng, driving=False, lights=False)
                turned = 0.0 if self._rng.random() < 0.3 else np.pi
                yaw = turned + self._rng.normal(0, 0.02)
                self._put(solid, x + 2.4, side * (kerb - 1.05), yaw)
            x += self._rng.uniform(5.6, 7.5)

    def _furniture(self, side: int) -> None:
        behind = self._street.kerb(side) + 0.35
        first = 0.0 if side > 0 else LAMP_PITCH_M
        for x in np.arange(first, BLOCK_M, 2 * LAMP_PITCH_M):
            lamp = objects.street_lamp(LAMP_HEIGHT_M, 1.4, lit=self._env.night)
            self._put(lamp, x, side * behind, np.pi if side > 0 else 0.0)
        for x in self._spread(int(self._rng.integers(1, 4))):
            yaw = 0.0 if side < 0 else np.pi
            self._put(objects.sign(self._rng), x, side * behind, yaw + self._rng.normal(0, 0.1))

    def _bystanders(self, side: int, reach: float) -> None:
        rng = self._rng
        near, far = self._street.kerb(side) + 0.4, self._street.edge(side) + reach
        for x in self._spread(int(rng.integers(2, 6))):
            person = Pedestrian(rng, self._env.air_k)
            y = side * rng.uniform(near, far)
            solid = person.posed(rng.uniform(0, 6), rng.uniform(0, 0.25))
            self._put(solid, x, y, rng.uniform(0, 2 * np.pi))
