"""Shards that a list names: here, and over HTTP, where nothing else can be listed."""

from __future__ import annotations

import re
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from shard_samples import CELLS, WANTED, assert_same_read, fleet_at, shard_of, write_fleet

from unim2_core.errors import DataError
from unim2_core.learning.shard_places import find_shards


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write_fleet(tmp_path)


class Ranges(SimpleHTTPRequestHandler):
    """Files of a folder, and parts of them where the server gives these."""

    def do_GET(self) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or not self.server.ranges:  # type: ignore[attr-defined]
            return super().do_GET()
        first, last = int(asked[1]), int(asked[2])
        part = Path(self.translate_path(self.path)).read_bytes()[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)
        return None

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Content-Length" or self.server.lengths:  # type: ignore[attr-defined]
            super().send_header(keyword, value)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_shards_over_http_are_listed_by_a_file(own: Path) -> None:
    pytest.importorskip("aiohttp", reason="not installed: pip install 'unim2[fleet]'")
    folders = sorted(path.name for path in own.glob("drives/*/"))
    (own / "may.txt").write_text("# of May\n" + "".join(f"drives/{name}/\n" for name in folders))
    handler = partial(Ranges, directory=str(own))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        server.ranges = server.lengths = True  # type: ignore[attr-defined]
        here, there = fleet_at(str(own / "may.txt")), fleet_at(f"{address}/may.txt")
        assert here.identity == there.identity == fleet_at(str(own)).identity
        assert_same_read(here, there, CELLS)
        mixed = [f"{address}/drives/{folders[0]}", *(f"drives/{name}" for name in folders[1:])]
        (own / "mixed.txt").write_text("\n".join(mixed))
        mixture = fleet_at(str(own / "mixed.txt"))
        assert mixture.identity == here.identity and mixture.remote and not here.remote
        assert_same_read(here, mixture, None)
        server.ranges = False  # type: ignore[attr-defined]
        with pytest.raises(DataError, match="does not give parts of a file"):
            there.read(np.arange(3))
        with pytest.raises(DataError, match="cannot be listed"):
            find_shards(address, WANTED)
        with pytest.raises(DataError, match="cannot read the list of features"):
            find_shards(f"{address}/june.txt", WANTED)
        server.lengths = False  # type: ignore[attr-defined]
        with pytest.raises(DataError, match=r"not known how long http.*features\.bin is"):
            find_shards(f"{address}/may.txt", WANTED)
        (own / "may.txt").write_text("drives/none\n")
        with pytest.raises(DataError, match="do not say what they are of"):
            find_shards(f"{address}/may.txt", WANTED)
        server.shutdown()


def test_a_list_names_shards(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(own))
    (own / "lists").mkdir()
    entries, june = own / "lists" / "may.txt", str(own / "lists" / "may.txt")
    entries.write_text(f"~/drives/{shard_of(own).name}\n")
    assert [shard.facts.name for shard in find_shards(june, WANTED)] == ["b"]
    entries.write_text("../drives/none\n")
    with pytest.raises(DataError, match=r"no features in .*drives/none(.|\n)*no such folder"):
        find_shards(june, WANTED)
    entries.write_text("..\n")
    with pytest.raises(DataError, match="or it is the folder that has drives/"):
        find_shards(june, WANTED)

    def forbidden(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    entries.write_text(f"../drives/{shard_of(own).name}\n")
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    for place in (june, str(own)):
        with pytest.raises(DataError, match=r"cannot read the features in .*drives/\w+\n"):
            find_shards(place, WANTED)
