"""Frozen features of a source of pictures: computed once, then opened wherever they are needed.

What reaches the loss is never augmented, so the features of a picture are constants. They are
kept below a cache folder, under the digest of everything that decides them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import IGNORED
from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.errors import DataError, ModelError
from unim2_core.files import write_atomically
from unim2_core.learning.feature_files import (
    FORMAT_VERSION,
    FeatureFiles,
    FeatureWriter,
    Journal,
    RecordLayout,
    Records,
    Row,
    cannot_store,
)
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.store_facts import FACTS, Recorded, StoreFacts
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.sensing.warping import registered

BATCH = 16
"""Pictures whose images are in memory at once."""

Progress = Callable[[int, int], object]
Warn = Callable[[str], object]

_log = logging.getLogger(__name__)
_LARGEST = float(np.finfo(np.float16).max)
_NAMED = 5  # records that a warning lists


def open_features(
    source: PictureSource,
    backbone: FrozenBackbone,
    cache: Path,
    *,
    batch: int = BATCH,
    progress: Progress | None = None,
    warn: Warn = _log.warning,
    verify: bool = True,
    recorded: Recorded | None = None,
) -> FeatureStore:
    """Features of all pictures of a source, memory-mapped; computed where they are not there yet.

    A complete store is only opened: nothing is decoded, computed or written. One that was
    interrupted is completed: its pictures are decoded once more, as some sources have to see the
    earlier ones, but the backbone runs only on those that are missing. Of two processes that want
    the same features the second waits for the first. Memory does not grow with the number of
    pictures, apart from some hundred bytes for the name and the numbers of each.

    Args:
        source: the pictures.
        backbone: the network.
        cache: folder of all stores; this one gets a folder in it.
        batch: pictures that go through the backbone at once.
        progress: called with how many pictures are done, and of how many at most.
        warn: called with what is odd: another process at work, a damaged record.
        verify: read everything once and hold it against its checksums. What is damaged is
            computed again.
        recorded: where the pictures are from; a store that says so can be learnt from without
            them, see ``shards``.

    Raises:
        ModelError: there are no pictures, or a feature is not a number that float16 holds.
        DataError: there is no room, or a picture is not what its source promises.
    """
    layout = _layout(source, backbone)
    folder = cache / _key(source, backbone)
    files = FeatureFiles(folder, layout)
    journal = files.read_journal()
    if not _usable(files, journal, verify):
        size = feature_bytes(source, backbone)
        with _alone(folder.with_suffix(".lock"), size, warn):
            journal = files.read_journal()  # the other process may have completed it
            if not _usable(files, journal, verify):
                _drop_corrupt(files, journal, warn)
                with FeatureWriter(files, journal, source.limit) as writer:
                    _compute(source, backbone, journal, writer, layout, batch, progress)
                journal = files.read_journal()
    store = files.store(journal, source.classes)
    if recorded and not (folder / FACTS).is_file():
        facts = StoreFacts.of(source, backbone, layout, store, recorded)
        write_atomically(folder / FACTS, facts.dump())
    return store


def feature_bytes(source: PictureSource, backbone: FrozenBackbone) -> int:
    """Bytes that the features of a source take on the disk, at most."""
    return source.limit * _layout(source, backbone).record.itemsize


def _layout(source: PictureSource, backbone: FrozenBackbone) -> RecordLayout:
    patch = backbone.patch_size
    height, width = source.size
    if height % patch or width % patch or min(height, width) < patch:
        raise DataError(
            "the pictures do not fit the backbone",
            expected=f"sides that are multiples of {patch} pixels",
            found=f"{height}x{width}",
            remedy="give another size with --size",
        )
    grid = (height // patch, width // patch)
    return RecordLayout(source.modalities, grid, backbone.embed_dim, source.label_size)


def _key(source: PictureSource, backbone: FrozenBackbone) -> str:
    """Hex digest of all that decides the content of the store."""
    parts = {
        "version": FORMAT_VERSION,
        "pictures": source.fingerprint(),
        "backbone": backbone.digest,
        "encodings": {name: dict(how) for name, how in source.encodings.items()},
        "size": source.size,
        "layout": asdict(_layout(source, backbone)),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _usable(files: FeatureFiles, journal: Journal, verify: bool) -> bool:
    return (
        journal.complete
        and files.has_room_for(len(journal.rows))
        and not (verify and files.corrupt(journal))
    )


def _drop_corrupt(files: FeatureFiles, journal: Journal, warn: Warn) -> None:
    """Forget the records that do not fit their checksums, and say so."""
    corrupt = files.corrupt(journal)
    if corrupt:
        names = [journal.rows.pop(number)[0].name for number in corrupt]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        warn(
            f"{len(corrupt)} records in {files.folder} are damaged and are computed again: "
            f"{', '.join(names[:_NAMED])}{more}"
        )


@contextmanager
def _alone(lock: Path, size: int, warn: Warn) -> Iterator[None]:
    """Be the only process with this lock; the system lets go of it however the process ends."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("ab")
    except OSError as error:
        raise cannot_store(lock.parent, size, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            warn(f"another process computes these features: waiting for it ({lock})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compute(
    source: PictureSource,
    backbone: FrozenBackbone,
    journal: Journal,
    writer: FeatureWriter,
    layout: RecordLayout,
    batch: int,
    progress: Progress | None,
) -> None:
    """Compute what is not in the journal."""
    count = 0
    group: list[Picture] = []

    def flush() -> None:
        # The same groups whatever was there: their size may change a sum's last bit.
        first = count - len(group)
        rows = [_row(picture) for picture in group]
        known = [journal.rows.get(first + index) for index in range(len(group))]
        if [entry and entry[0] for entry in known] != rows:
            writer.write(first, _records(group, backbone, layout), rows)
        group.clear()
        if progress:
            progress(count, source.limit)

    for picture in source:
        count += 1
        _check(picture, source, layout, count)
        group.append(picture)
        if len(group) == batch:
            flush()
    if group:
        flush()
    if not count:
        raise ModelError(
            "nothing to learn from",
            expected="at least one picture",
            found="none",
            remedy="look at the streams of a bag with: unim2 info BAG",
        )
    writer.finish(count)


def _row(picture: Picture) -> Row:
    return Row(picture.name, int(picture.source), int(picture.sequence), int(picture.stamp_ns))


def _check(picture: Picture, source: PictureSource, layout: RecordLayout, count: int) -> None:
    """Hold a picture against what its source says of all of them."""
    found = {
        "pictures": (count <= source.limit, f"at most {source.limit}", f"{count}"),
        "modalities": (
            set(picture.images) <= set(layout.modalities),
            f"some of {', '.join(layout.modalities)}",
            ", ".join(picture.images),
        ),
    }
    for name, image in picture.images.items():
        shape = (*source.size, 3)
        found[f"image of {name}"] = (image.shape == shape, f"{shape}", f"{image.shape}")
        grid_map = picture.maps.get(name)
        if grid_map is not None:
            sizes = (grid_map.valid.shape, tuple(grid_map.source))
            found[f"map of {name}"] = (
                sizes == (layout.grid, layout.grid),
                f"from {layout.grid} to {layout.grid}",
                f"from {sizes[0]} to {sizes[1]}",
            )
    if picture.labels is not None:
        size = picture.labels.shape
        found["labels"] = (size == layout.label_size, f"{layout.label_size}", f"{size}")
    for what, (holds, expected, actual) in found.items():
        if not holds:
            raise DataError(
                f"{picture.name} is not as its source says: {what}",
                expected=expected,
                found=actual,
                remedy="report this, with what the pictures were made from",
            )


def _records(group: Sequence[Picture], backbone: FrozenBackbone, layout: RecordLayout) -> Records:
    """Run the backbone on pictures, modality by modality: (B,) records."""
    records: Records = np.zeros(len(group), layout.record)
    for modality in layout.modalities:
        there = [index for index, picture in enumerate(group) if modality in picture.images]
        if not there:
            continue
        every = backbone(np.stack([group[index].images[modality] for index in there]))
        for index, tokens in zip(there, every, strict=True):
            _check_tokens(tokens, group[index].name, modality)
            picture = group[index]
            placed, presence = registered(
                tokens, picture.valid.get(modality), picture.maps.get(modality)
            )
            records[f"tokens/{modality}"][index] = placed
            records[f"presence/{modality}"][index] = presence
    if layout.label_size:
        for index, picture in enumerate(group):
            labels = picture.labels
            records["labels"][index] = IGNORED if labels is None else labels
    return records


def _check_tokens(tokens: NDArray[np.float32], picture: str, modality: str) -> None:
    largest = np.abs(tokens).max()
    if not largest <= _LARGEST:  # nor if it is not a number
        raise ModelError(
            f"the features of {picture}, {modality}, cannot be kept",
            expected=f"finite numbers of at most {_LARGEST:.0f}",
            found=f"{largest}",
            remedy="check the backbone's weights, and look at this image",
        )
