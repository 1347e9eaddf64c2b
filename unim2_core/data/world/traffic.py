"""What moves: cars in both lanes, people on the sidewalks and people who cross the street."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from unim2_core.data.world import objects
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.people import Pedestrian
from unim2_core.data.world.solids import Solid
from unim2_core.data.world.street import LANE_MIDDLE_M, SIDEWALK_M, Street, Trajectory

CAR_RANGE_M = 110.0
"""Traffic is kept up to this far before and behind the robot; beyond, it turns up on the other
side again, so that it never thins out."""
ONCOMING_MPS = 8.5
WALK_RANGE_M = 45.0
UNSEEN_M = -4.0
"""Behind this point, ahead of base_link, nothing comes into view: the cameras look ahead."""
WALKERS = 28

_Placed = tuple[Solid, float, float, float]
"""A solid, its x on the street, its distance from the centre line and its yaw to the street."""


@dataclass(frozen=True, eq=False)
class _Vehicle:
    solid: Solid
    start_m: float
    across_m: float


@dataclass(frozen=True, eq=False)
class _Walker:
    person: Pedestrian
    start_m: float
    speed_mps: float
    side: int
    across_m: float
    phase: float


@dataclass(frozen=True, eq=False)
class _Leader:
    solid: Solid
    gap_m: float
    phase: float


class Traffic:
    """Everything that moves in one drive, as a function of time."""

    def __init__(
        self,
        seed: tuple[int, ...],
        street: Street,
        trajectory: Trajectory,
        environment: Environment,
    ) -> None:
        rng = np.random.default_rng([*seed, 51])
        self._street, self._trajectory = street, trajectory
        self._environment = environment
        self._seed = seed
        night = environment.night

        def drawn_car() -> Solid:
            return objects.car(rng, driving=True, lights=night)

        slots = np.arange(7) * (2 * CAR_RANGE_M / 7)
        self._oncoming = [
            _Vehicle(drawn_car(), x + rng.uniform(0, 18), LANE_MIDDLE_M + rng.uniform(-0.1, 0.2))
            for x in slots
        ]
        gaps = (rng.uniform(9, 16), rng.uniform(26, 38), rng.uniform(55, 70))
        self._leaders = [_Leader(drawn_car(), g, rng.uniform(0, 6)) for g in gaps]
        if rng.random() < 0.3:
            self._leaders = self._leaders[1:]
        self._walkers = []
        for x in np.arange(WALKERS) * (2 * WALK_RANGE_M / WALKERS):
            side = int(rng.choice((1, -1)))
            self._walkers.append(
                _Walker(
                    Pedestrian(rng, environment.air_k),
                    x + rng.uniform(0, 4),
                    float(rng.choice((1, -1)) * rng.uniform(0.9, 1.6)),
                    side,
                    street.walk(side) + rng.uniform(0.3, SIDEWALK_M - 0.3),
                    rng.uniform(0, 6),
                )
            )

    def solids(self, time_s: float, start_m: float) -> list[Solid]:
        """All movers at a time, in the frame of the stage that begins at ``start_m``."""
        ego = self._trajectory.along(time_s)
        placed = (
            *self._vehicles(time_s, ego),
            *self._walking(time_s, ego),
            *self._crossing(time_s, ego),
        )
        return [self._set_down(start_m, *mover) for mover in placed]

    def _vehicles(self, time_s: float, ego: float) -> Iterator[_Placed]:
        for v in self._oncoming:
            x = _around(ego, v.start_m - ONCOMING_MPS * time_s, CAR_RANGE_M)
            if x < ego + UNSEEN_M:
                continue
            yield v.solid, x, v.across_m, np.pi
        for leader in self._leaders:
            x = ego + 2.5 + leader.gap_m + 1.5 * np.sin(0.35 * time_s + leader.phase)
            yield leader.solid, x, -LANE_MIDDLE_M, 0.0

    def _walking(self, time_s: float, ego: float) -> Iterator[_Placed]:
        for w in self._walkers:
            x = _around(ego, w.start_m + w.speed_mps * time_s, WALK_RANGE_M)
            if x < ego + UNSEEN_M:
                continue
            body = w.person.posed(w.phase + 4.2 * w.speed_mps * time_s, 0.45)
            yield body, x, w.side * w.across_m, 0.0 if w.speed_mps > 0 else np.pi

    def _crossing(self, time_s: float, ego: float) -> Iterator[_Placed]:
        """People who cross well before the robot comes and are on the far side as it passes."""
        pitch = 24.0
        for index in range(int((ego + UNSEEN_M) // pitch), int((ego + 45) // pitch) + 1):
            rng = np.random.default_rng([*self._seed, 52, index + 1000])
            if rng.random() < 0.35:
                continue
            x = (index + rng.uniform(0.2, 0.8)) * pitch
            person = Pedestrian(rng, self._environment.air_k)
            side = int(rng.choice((1, -1)))
            reach = self._street.kerb(side) + 1.0
            remaining_s = (x - ego) / self._trajectory.speed_mps
            pace = rng.uniform(1.1, 1.7)
            # On its own kerb 1.5 s before the robot arrives, and coming towards it until then.
            y = min(reach, reach - pace * (remaining_s - 1.5))
            walking = y < reach
            y = max(y, -self._street.kerb(-side) - 1.0)
            walking = walking and y > -self._street.kerb(-side) - 1.0
            body = person.posed(4.2 * pace * time_s, 0.45 if walking else 0.05)
            yield body, x, side * y, -side * np.pi / 2

    def _set_down(
        self, start_m: float, solid: Solid, x: float, across: float, yaw: float
    ) -> Solid:
        heading = float(self._street.heading(x))
        y = float(self._street.centre(x)) + across
        return solid.moved(heading + yaw, (x - start_m, y, 0.0))


def _around(middle: float, x: float, reach: float) -> float:
    """``x`` taken modulo twice the reach into [middle - reach, middle + reach)."""
    return middle - reach + (x - middle + reach) % (2 * reach)
