"""How fast neighbours are found among very many pictures, beside a plain matrix product.

    python benchmarks/neighbors.py                  # 100000 pictures, some minutes on two cores
    python benchmarks/neighbors.py --pictures 20000

Descriptors of 384 numbers, seven neighbours: the published rule (every other picture), and
drives at 10 Hz in which neighbours are at least 2 s apart. The share is that of the speed of a
plain matrix product of 2048 x 2048, measured before and after; only the product of all
descriptors with all is counted as work. Memory is what the search adds to the descriptors.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from machine import gflops, matrix_product, peak_mib, seconds_of
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unim2_core.learning.neighbors import nearest

DIM, COUNT = 384, 7
DRIVE, APART = 6000, 20
"""Pictures of a drive, and pictures that are too close in time on either side."""


def spans_of_drives(pictures: int) -> Tensor:
    """(N, 2) rows from and to that are no neighbours of each picture."""
    rows = torch.arange(pictures)
    first = rows // DRIVE * DRIVE
    end = (first + DRIVE).clamp(max=pictures)
    return torch.stack(
        [torch.maximum(rows - APART + 1, first), torch.minimum(rows + APART, end)], dim=1
    )


def row(name: str, pictures: int, spans: Tensor | None) -> tuple[str, ...]:
    """Measure one search."""
    generator = torch.Generator().manual_seed(0)
    descriptors = F.normalize(torch.randn(pictures, DIM, generator=generator), dim=1)
    product = matrix_product(torch.float32)
    product()
    before = peak_mib(lambda: None)
    plain = [seconds_of(product, 7)]
    seconds = 0.0

    def search() -> None:
        nonlocal seconds
        seconds = seconds_of(lambda: nearest(descriptors, COUNT, spans))

    added = peak_mib(search) - before
    plain.append(seconds_of(product, 7))
    peak = gflops(sum(plain) / 2)
    found = 2 * pictures**2 * DIM / seconds / 1e9
    numbers = (f"{pictures}", f"{seconds:.1f}", f"{found:.0f}", f"{peak:.0f}")
    return name, *numbers, f"{found / peak:.0%}", f"{added:.0f}"


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=100_000)
    pictures = parser.parse_args().pictures
    table = Table(title=f"{torch.get_num_threads()} threads")
    for heading in ("rule", "pictures", "s", "GFLOP/s", "product GFLOP/s", "share", "MiB added"):
        table.add_column(heading, justify="left" if heading == "rule" else "right")
    for count in (pictures // 4, pictures):
        table.add_row(*row("published", count, None))
        table.add_row(*row("drives", count, spans_of_drives(count)))
    Console().print(table)


if __name__ == "__main__":
    main()
