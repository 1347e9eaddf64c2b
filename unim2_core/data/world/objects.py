"""Cars, trees, buildings, fences and poles, each with its own variation."""

from __future__ import annotations

import numpy as np

from unim2_core.data.world.colours import (
    CAR_COLOURS,
    ROOF_TINTS,
    SIGN_COLOURS,
    WALL_COLOURS,
    pick,
)
from unim2_core.data.world.solids import Sculptor, Solid

Rng = np.random.Generator


def car(rng: Rng, *, driving: bool, lights: bool) -> Solid:
    """A car at the origin that points along +x; 26 polygons."""
    s = Sculptor()
    tint = pick(rng, CAR_COLOURS)
    van = rng.random() < 0.25
    length, width = rng.uniform(3.9, 4.7) + 0.6 * van, rng.uniform(1.7, 1.85) + 0.15 * van
    height = rng.uniform(1.9, 2.3) if van else rng.uniform(1.38, 1.6)
    sill, belt = 0.28, 0.88 + 0.2 * van
    rear, front = -length / 2, length / 2
    bonnet = front - (0.7 if van else rng.uniform(1.0, 1.25))  # x where the windscreen begins
    screen = bonnet - (0.45 if van else 0.75)
    boot = rear + (0.02 if van else rng.uniform(0.1, 0.75))
    tail = boot + (0.05 if van else 0.4)
    nose = belt - 0.14
    y = width / 2
    engine = rng.uniform(5, 16) if driving else rng.uniform(0, 2) ** 2
    power = float(lights)

    for side in (1, -1):
        flip = slice(None, None, -side)  # both flanks counter-clockwise from outside
        lower = [
            (rear, sill), (front, sill), (front, nose), (bonnet, belt), (rear, belt),
        ]  # fmt: skip
        s.polygon([(a, side * y, b) for a, b in lower][flip], "paint", tint)
        inner = y - 0.12
        cabin = [(boot, belt), (bonnet, belt), (screen, height), (tail, height)]
        lean = [y, y, inner, inner]
        s.polygon(
            [(a, side * w, b) for (a, b), w in zip(cabin, lean, strict=True)][flip], "paint", tint
        )
        top, low = height - 0.1, belt + 0.06
        slope = (y - inner) / (height - belt)
        glass = [
            (boot + 0.28, low), (bonnet - 0.22, low), (screen - 0.05, top), (tail + 0.1, top),
        ]  # fmt: skip
        s.polygon(
            [(a, side * (y + 0.012 - slope * (b - belt)), b) for a, b in glass][flip], "car_glass"
        )
        for x in (rear + 0.75, front - 0.8):
            for radius, offset, material in ((0.33, 0.015, "tyre"), (0.19, 0.03, "hub")):
                angle = np.arange(8) * (np.pi / 4) * -side
                rim = [(x + radius * np.cos(a), side * (y + offset), 0.33 + radius * np.sin(a))
                       for a in angle]  # fmt: skip
                s.polygon(rim, material, heat_k=(7.0 if driving else 0.0))
        lamp_y = side * (y - 0.25) - 0.17
        s.quad((front + 0.012, lamp_y, nose - 0.2), (0, 0.34, 0), (0, 0, 0.16), "headlight",
               power=power)  # fmt: skip
        s.quad((rear - 0.012, lamp_y + 0.34, belt - 0.25), (0, -0.34, 0), (0, 0, 0.18),
               "taillight", power=power)  # fmt: skip
    across = (0, width, 0)
    s.quad((front, -y, sill), across, (0, 0, nose - sill), "grille", heat_k=engine)
    s.quad((front, -y, nose), across, (bonnet - front, 0, belt - nose), "bonnet", tint,
           heat_k=engine)  # fmt: skip
    s.quad((rear, y, sill), (0, -width, 0), (0, 0, belt - sill), "paint", tint)
    s.quad((boot, -y, belt), across, (rear - boot, 0, 0), "paint", tint)
    screen_edge = [(bonnet, -y, belt), (bonnet, y, belt), (screen, inner, height),
                   (screen, -inner, height)]  # fmt: skip
    s.polygon(screen_edge, "car_glass", heat_k=engine / 4)
    s.polygon(
        [(boot, y, belt), (boot, -y, belt), (tail, -inner, height), (tail, inner, height)],
        "paint" if van else "car_glass",
        tint if van else (1, 1, 1),
    )
    s.quad((tail, -inner, height), (screen - tail, 0, 0), (0, 2 * inner, 0), "paint", tint)
    return s.solid()


def tree(rng: Rng, dry: float) -> Solid:
    """A broad-leaved tree or a conifer at the origin."""
    s = Sculptor()
    leaf = "foliage_dry" if rng.random() < dry else "foliage"
    tint = tuple(np.exp(rng.normal(0, 0.22)) * np.exp(rng.normal(0, 0.08, 3)))
    height = rng.uniform(5.0, 9.5)
    if rng.random() < 0.25:
        s.ellipsoid((0, 0, 0.2 * height), (0.15, 0.15, 0.25 * height), "bark")
        for level, (z, r) in enumerate(((0.38, 0.24), (0.58, 0.18), (0.78, 0.11))):
            lift = 0.24 if level else 0.28
            s.ellipsoid((0, 0, z * height), (r * height, r * height, lift * height), leaf, tint,
                        ragged=0.7, pattern=int(rng.integers(64)))  # fmt: skip
        return s.solid()
    trunk = rng.uniform(0.12, 0.24)
    s.ellipsoid((0, 0, 0.3 * height), (trunk, trunk, 0.42 * height), "bark")
    spread = rng.uniform(0.16, 0.24) * height
    for k in range(int(rng.integers(4, 7))):
        angle = k * 2.4 + rng.uniform(0, 1)
        reach = spread * rng.uniform(0.3, 0.9) * (k > 0)
        r = spread * rng.uniform(0.7, 1.05)
        s.ellipsoid(
            (reach * np.cos(angle), reach * np.sin(angle), height * rng.uniform(0.55, 0.85)),
            (r, r, r * rng.uniform(0.7, 0.95)),
            leaf, tint, ragged=float(rng.uniform(0.7, 1.0)), pattern=int(rng.integers(64)),
        )  # fmt: skip
    return s.solid()


def bush(rng: Rng, dry: float) -> Solid:
    """A bush of two or three balls."""
    s = Sculptor()
    leaf = "foliage_dry" if rng.random() < dry else "foliage"
    tint = tuple(np.exp(rng.normal(0, 0.2, 3) * np.array([1, 0.3, 0.3])))
    for _ in range(int(rng.integers(1, 4))):
        r = rng.uniform(0.4, 0.9)
        x, y = rng.uniform(-0.6, 0.6, 2)
        s.ellipsoid((x, y, 0.6 * r), (r, r, 0.85 * r), leaf, tint, ragged=0.8,
                    pattern=int(rng.integers(64)))  # fmt: skip
    return s.solid()


def hedge(rng: Rng, length: float, dry: float) -> Solid:
    """A clipped hedge along +x."""
    s = Sculptor()
    leaf = "foliage_dry" if rng.random() < dry else "foliage"
    tint = tuple(np.exp(rng.normal(0, 0.2, 3) * np.array([1, 0.4, 0.4])))
    s.box((0, -0.35, 0), (length, 0.35, rng.uniform(0.9, 1.7)), leaf, tint)
    return s.solid()


def building(rng: Rng, width: float, depth: float, storeys: int, *, gable: bool) -> Solid:
    """A house with its front on y = 0 between x = 0 and ``width``, its body behind (+y)."""
    s = Sculptor()
    material = ("brick", "plaster", "planks", "panels")[rng.choice(4, p=(0.3, 0.35, 0.15, 0.2))]
    tint = pick(rng, WALL_COLOURS)
    storey = rng.uniform(2.8, 3.4)
    height = storeys * storey + rng.uniform(0.3, 0.9)
    modern = material == "panels"
    bays = max(2, round(width / rng.uniform(1.9, 3.2)))
    glass = (rng.uniform(0.62, 0.88), rng.uniform(0.55, 0.8)) if modern else (
        rng.uniform(0.38, 0.6), rng.uniform(0.42, 0.62))  # fmt: skip
    facade = (width / bays, storey, *glass, rng.uniform(0.1, 0.5), rng.random())
    side = (depth / max(2, round(depth / 3.5)), *facade[1:])
    warmth = rng.normal(0, 1.5)
    up, back = (0, 0, height), (0, depth, 0)
    s.quad((0, 0, 0), (width, 0, 0), up, material, tint, heat_k=warmth, facade=facade)
    s.quad((width, 0, 0), back, up, material, tint, heat_k=warmth, facade=side)
    s.quad((0, depth, 0), (0, -depth, 0), up, material, tint, heat_k=warmth, facade=side)
    door = rng.integers(bays) * width / bays + 0.35 * width / bays
    s.quad((door, -0.03, 0), (1.1, 0, 0), (0, 0, 2.2), "door", pick(rng, WALL_COLOURS, 0.4))
    if gable:
        rise, eave = 0.36 * depth, 0.4
        middle, ridge = depth / 2, height + rise
        drop = eave * rise / middle
        for a, b in ((0.0, 1.0), (width, -1.0)):
            points = [(a, 0, height), (a, depth, height), (a, middle, ridge)]
            s.polygon(points[:: int(-b)], material, tint, heat_k=warmth)
        ramp = (0, middle + eave, rise + drop)
        s.quad((-eave, -eave, height - drop), (width + 2 * eave, 0, 0), ramp, "roof",
               pick(rng, ROOF_TINTS), two_sided=True)  # fmt: skip
    else:
        s.quad((-0.15, -0.18, height - 0.35), (width + 0.3, 0, 0), (0, 0, 0.5), "frame", tint)
        s.quad((-0.15, depth, height - 0.35), (0, -depth - 0.18, 0), (0, 0, 0.5), "frame", tint)
        s.quad((width + 0.15, -0.18, height - 0.35), (0, depth + 0.18, 0), (0, 0, 0.5), "frame",
               tint)  # fmt: skip
    return s.solid()


def fence(rng: Rng, length: float, *, bars: bool) -> Solid:
    """A fence along +x, of boards or of metal bars."""
    s = Sculptor()
    height = rng.uniform(1.0, 1.7)
    tint = tuple(np.exp(rng.normal(0, 0.35)) * np.ones(3))
    if bars:
        s.quad((0, 0, 0.1), (length, 0, 0), (0, 0, height - 0.1), "metal", tint, two_sided=True,
               gaps=(0.14, 0.30))  # fmt: skip
        for z in (0.12, height - 0.06):
            s.quad((0, -0.02, z), (length, 0, 0), (0, 0, 0.06), "metal", tint, two_sided=True)
    else:
        s.quad((0, 0, 0.05), (length, 0, 0), (0, 0, height), "timber", tint, two_sided=True,
               gaps=(0.16, 0.88))  # fmt: skip
    material = "metal" if bars else "timber"
    for x in np.linspace(0, length, max(2, round(length / 2.5)) + 1):
        s.box((x - 0.05, -0.05, 0), (x + 0.05, 0.05, height + 0.1), material, tint)
    return s.solid()


def street_lamp(height: float, arm: float, *, lit: bool) -> Solid:
    """A lamp post at the origin whose arm reaches ``arm`` metres along +y."""
    s = Sculptor()
    s.box((-0.07, -0.07, 0), (0.07, 0.07, height), "metal", (0.5, 0.5, 0.5))
    s.box((-0.04, 0, height - 0.08), (0.04, arm, height), "metal", (0.5, 0.5, 0.5))
    low, high = (-0.13, arm - 0.5, height - 0.16), (0.13, arm + 0.1, height - 0.05)
    s.box(low, high, "lamp", power=float(lit))
    return s.solid()


def sign(rng: Rng) -> Solid:
    """A traffic sign that faces -x."""
    s = Sculptor()
    z = rng.uniform(2.0, 2.6)
    s.box((-0.04, -0.04, 0), (0.04, 0.04, z + 0.3), "metal")
    radius = rng.uniform(0.3, 0.42)
    corners = int(rng.choice((3, 4, 8)))
    angle = np.arange(corners) * (-2 * np.pi / corners) + np.pi / 2 + (np.pi / 4) * (corners == 4)
    plate = [(-0.06, radius * np.cos(a), z + radius * np.sin(a)) for a in angle]
    s.polygon(plate, "sign", pick(rng, SIGN_COLOURS), two_sided=True)
    return s.solid()
