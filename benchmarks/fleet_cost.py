"""What a fleet of 10, 1 000 and 100 000 drives takes: machines, storage, network, money.

The figures that feed it are measured (``benchmarks/fleet.py --json``) or given; the table prints
them all. Nothing here is a price list: give your own with ``--core-hour`` and its like.

    python benchmarks/fleet_cost.py --measured fleet.json --images 18000 --drive-gb 20
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

FLEETS = (10, 1_000, 100_000)
HOUR = 3600.0
GIGABIT = 1e9 / 8


@dataclass(frozen=True)
class Inputs:
    """What the model is fed with.

    Attributes:
        images: reference images of a drive.
        core_s: of one core for one image, measured.
        start_s: of a worker until its engine is loaded, measured.
        journal_s: of the driver for each drive, measured.
        drive_gb: of a drive, 1e9 bytes.
        output_mb: of the outputs of one image.
        feature_mb: of the features of one image.
        feature_images: images of a drive that features are kept of.
        hours: in which the fleet is to be done.
        machine_cores: of one machine.
        machine_gbit: of its network, per second.
        core_hour: price.
        gb_month: price of storage.
        gb_out: price of a gigabyte that leaves the store.
    """

    images: int
    core_s: float
    start_s: float
    journal_s: float
    drive_gb: float
    output_mb: float
    feature_mb: float
    feature_images: int
    hours: float
    machine_cores: int
    machine_gbit: float
    core_hour: float
    gb_month: float
    gb_out: float


@dataclass(frozen=True)
class Cost:
    """What a fleet takes.

    Attributes:
        core_hours: of computing.
        machines: so that it is done in the hours that are given.
        drives_tb: that are read, 1e12 bytes.
        outputs_tb: that are written.
        features_tb: of a feature cache of the same drives.
        gbit: network of the store, per second, while the fleet runs.
        share: of a machine's network that its own drives take.
        driver: share of the hours in which the driver writes its journal.
        money: computing, one month of outputs and features, and reading.
    """

    core_hours: float
    machines: int
    drives_tb: float
    outputs_tb: float
    features_tb: float
    gbit: float
    share: float
    driver: float
    money: float

    @property
    def breaks_first(self) -> str:
        """What stands in the way, the worst first."""
        limits = {
            "network of each machine": self.share,
            "driver's journal": self.driver,
            "network of the store (100 Gbit/s)": self.gbit / 100,
            "machines (100)": self.machines / 100,
        }
        worst = max(limits, key=lambda name: limits[name])
        return f"{worst}, at {100 * limits[worst]:.3g} %"


def cost(drives: int, given: Inputs) -> Cost:
    """The arithmetic, for one number of drives."""
    compute_s = drives * given.images * given.core_s
    cores = compute_s / (given.hours * HOUR)
    machines = max(1, math.ceil(cores / given.machine_cores))
    starts_s = machines * given.machine_cores * given.start_s
    read_gb = drives * given.drive_gb
    outputs_gb = drives * given.images * given.output_mb / 1e3
    features_gb = drives * given.feature_images * given.feature_mb / 1e3
    moved_s = (read_gb + outputs_gb) * 1e9 / GIGABIT
    gbit = moved_s / (given.hours * HOUR)
    core_hours = (compute_s + starts_s) / HOUR
    return Cost(
        core_hours,
        machines,
        read_gb / 1e3,
        outputs_gb / 1e3,
        features_gb / 1e3,
        gbit,
        gbit / machines / given.machine_gbit,
        drives * given.journal_s / (given.hours * HOUR),
        core_hours * given.core_hour
        + (outputs_gb + features_gb) * given.gb_month
        + read_gb * given.gb_out,
    )


def inputs() -> tuple[Inputs, str]:
    """What the command line says, and where the measured figures are from."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add = parser.add_argument
    add("--measured", type=Path, help="JSON of benchmarks/fleet.py")
    add("--core-s", type=float, help="of one core for one image; else as measured")
    add("--images", type=int, default=18_000, help="of a drive: 30 minutes at 10 Hz")
    add("--drive-gb", type=float, default=20.0)
    add("--feature-images", type=int, default=100)
    add("--feature-mb", type=float, default=2.0, help="1200 tokens of 384, float16, two sensors")
    add("--hours", type=float, default=24.0, help="in which the fleet is to be done")
    add("--machine-cores", type=int, default=32)
    add("--machine-gbit", type=float, default=10.0)
    add("--core-hour", type=float, default=0.04)
    add("--gb-month", type=float, default=0.02)
    add("--gb-out", type=float, default=0.0, help="0: machines beside the store")
    asked = parser.parse_args()
    if asked.measured is None and asked.core_s is None:
        parser.error("expected --measured FILE of benchmarks/fleet.py --json FILE, or --core-s")
    found = json.loads(asked.measured.read_text()) if asked.measured else {}
    given = Inputs(
        images=asked.images,
        core_s=asked.core_s or found["core_s_per_image"],
        start_s=found.get("worker_start_s", 5.0),
        journal_s=found.get("driver_s_per_drive", 0.005),
        drive_gb=asked.drive_gb,
        output_mb=found.get("output_mb_per_image", 0.1),
        feature_mb=asked.feature_mb,
        feature_images=asked.feature_images,
        hours=asked.hours,
        machine_cores=asked.machine_cores,
        machine_gbit=asked.machine_gbit,
        core_hour=asked.core_hour,
        gb_month=asked.gb_month,
        gb_out=asked.gb_out,
    )
    return given, found.get("what", "as given on the command line, not measured")


def main() -> None:
    """Print what goes in and what comes out."""
    console = Console(width=140)
    given, source = inputs()
    table = Table("input", "value", title=f"measured: {source}")
    for name, value in vars(given).items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else f"{value:,}")
    console.print(table)
    rows = {drives: cost(drives, given) for drives in FLEETS}
    table = Table(
        *("drives", "core hours", "machines", "TB read", "TB outputs", "TB features"),
        *("Gbit/s of the store", "of a machine's network", "of the driver", "money"),
        *("breaks first",),
    )
    for drives, row in rows.items():
        table.add_row(
            *(f"{drives:,}", f"{row.core_hours:,.0f}", f"{row.machines:,}"),
            *(f"{part:,.3g}" for part in (row.drives_tb, row.outputs_tb, row.features_tb)),
            *(f"{row.gbit:.3g}", f"{100 * row.share:.3g} %", f"{100 * row.driver:.3g} %"),
            *(f"{row.money:,.0f}", row.breaks_first),
        )
    console.print(table)


if __name__ == "__main__":
    main()
