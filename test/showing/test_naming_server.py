"""The page's server, spoken to without a browser: what must be refused is refused."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from naming_samples import session_on

from unim2_core.errors import Unim2Error
from unim2_core.model.bundle import MANIFEST, UNLABELLED, Bundle
from unim2_core.showing.naming.labelling import Hint
from unim2_core.showing.naming.server import LONGEST_BODY, LOOPBACK, NamingServer

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def server(model_path: Path, tmp_path: Path) -> Iterator[NamingServer]:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    with NamingServer(session_on(Bundle(copy), hints={0: Hint("road", 0.8, True)})) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(
    server: NamingServer,
    method: str,
    path: str,
    body: Any = None,
    *,
    token: str | None = None,
    **headers: str | None,
) -> tuple[int, dict[str, str], bytes]:
    """Send a request as the page would, apart from what is given."""
    host = server.hosts[0]
    sent: dict[str, str | None] = {"Host": host}
    if method == "POST":
        sent |= {"Origin": f"http://{host}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection(LOOPBACK, server.server_port, timeout=10)
    connection.putrequest(
        method,
        f"/{server.token if token is None else token}/{path}",
        skip_host=True,
        skip_accept_encoding=True,
    )
    content = json.dumps(body).encode() if body is not None else b""
    if content:
        sent.setdefault("Content-Length", str(len(content)))
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(content or None)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return found


def names(server: NamingServer) -> list[str]:
    return [label.name for label in server.session.edits.now.labels]


NAME = {"do": "name", "cluster": 1, "name": "road"}


def test_only_this_machine_can_reach_it(server: NamingServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")


def test_each_run_has_a_long_token_of_its_own(server: NamingServer) -> None:
    with NamingServer(server.session) as other:
        assert other.token != server.token
    assert len(server.token) >= 43


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("", "text/html; charset=utf-8"),
        ("page.js", "text/javascript; charset=utf-8"),
        ("page.css", "text/css; charset=utf-8"),
        ("page.svg", "image/svg+xml"),
        ("about.json", "application/json"),
        ("thumbs.jpg", "image/jpeg"),
        ("0-typical.jpg", "image/jpeg"),
        ("3-unsure.jpg", "image/jpeg"),
    ],
)
def test_the_page_and_its_parts_are_served_strictly(
    server: NamingServer, path: str, kind: str
) -> None:
    status, headers, content = ask(server, "GET", path)
    assert (status, headers["Content-Type"]) == (200, kind)
    assert content
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert "Python" not in headers["Server"]


def test_the_page_names_no_other_address(server: NamingServer) -> None:
    for path in ("", "page.js", "page.css"):
        content = ask(server, "GET", path)[2].decode()
        assert "http:" not in content.replace("http://www.w3.org/2000/svg", "")
        assert "https:" not in content
        assert "innerHTML" not in content


@pytest.mark.parametrize("token", ["", "x", "0" * 43, "../..", "%00", "\u00e9"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_token_is_refused(server: NamingServer, method: str, token: str) -> None:
    body = NAME if method == "POST" else None
    token = token.encode("utf-8").decode("latin-1") if token.isascii() else "%C3%A9"
    before = names(server)
    status, _, content = ask(server, method, "edit" if body else "", body, token=token)
    assert status == 403
    assert server.token.encode() not in content
    assert names(server) == before


def test_a_token_that_begins_right_is_refused(server: NamingServer) -> None:
    assert ask(server, "GET", "", token=server.token[:-1])[0] == 403
    assert ask(server, "GET", "", token=server.token + "x")[0] == 403


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "[::1]:{port}"],
)
def test_another_host_is_refused(server: NamingServer, host: str | None) -> None:
    host = host and host.format(port=server.server_port)
    assert ask(server, "GET", "about.json", Host=host)[0] == 403
    assert ask(server, "POST", "edit", NAME, Host=host)[0] == 403
    assert "road" not in names(server)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",
        "http://evil.example",
        "https://{host}",
        "http://{host}.evil.example",
        "http://127.0.0.1:1",
    ],
)
def test_another_origin_is_refused(server: NamingServer, origin: str | None) -> None:
    origin = origin and origin.format(host=server.hosts[0])
    status, headers, _ = ask(server, "POST", "edit", NAME, Origin=origin)
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers
    assert "road" not in names(server)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_what_a_form_can_send_is_refused(server: NamingServer, kind: str | None) -> None:
    assert ask(server, "POST", "edit", NAME, Content_Type=kind)[0] == 415
    assert "road" not in names(server)


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/etc/passwd",
        "....//....//etc/passwd",
        "/etc/passwd",
        "page.html",
        "page.js/../session.py",
        "page.js%00.jpg",
        "session.py",
        "../manifest.json",
        "99-typical.jpg",
        "0-typical.jpg/..",
        "0-other.jpg",
    ],
)
def test_paths_lead_nowhere_else(server: NamingServer, path: str) -> None:
    status, _, content = ask(server, "GET", path)
    assert status == 404
    assert b"root:" not in content
    assert ask(server, "POST", path, NAME)[0] == 404


def test_an_upload_of_100_mb_is_refused_before_it_is_read(server: NamingServer) -> None:
    with socket.create_connection((LOOPBACK, server.server_port), timeout=10) as connection:
        head = (
            f"POST /{server.token}/edit HTTP/1.1\r\nHost: {server.hosts[0]}\r\n"
            f"Origin: http://{server.hosts[0]}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {100 * 1024 * 1024}\r\n\r\n"
        )
        connection.sendall(head.encode())  # and not one byte of the body
        answer = b""
        while part := connection.recv(65536):
            answer += part
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


@pytest.mark.parametrize("length", [None, "-1", "x", "1_0", " ", "9" * 400])
def test_a_body_needs_a_sound_length(server: NamingServer, length: str | None) -> None:
    status = ask(server, "POST", "edit", NAME, Content_Length=length)[0]
    assert status == (413 if length == "9" * 400 else 411)


def test_a_body_in_chunks_is_refused(server: NamingServer) -> None:
    assert ask(server, "POST", "edit", NAME, Transfer_Encoding="chunked")[0] == 411


def test_a_body_a_little_too_long_is_refused(server: NamingServer) -> None:
    body = NAME | {"name": "x" * LONGEST_BODY}
    assert ask(server, "POST", "edit", body)[0] == 413


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "HEAD"])
def test_other_methods_are_refused(server: NamingServer, method: str) -> None:
    assert ask(server, method, "edit")[0] == 501


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"do": "format"},
        NAME | {"more": 1},
        {"do": "name", "cluster": "one", "name": "x"},
        {"do": "merge", "clusters": [1]},
        {"do": "color", "cluster": 1, "color": [0, 0, 256]},
    ],
)
def test_a_request_that_is_none_is_refused(server: NamingServer, body: Any) -> None:
    status, _, content = ask(server, "POST", "edit", body)
    assert status == 400
    assert json.loads(content)["error"]
    assert not server.session.edits.can_undo


def test_an_impossible_step_is_explained(server: NamingServer) -> None:
    status, _, content = ask(server, "POST", "edit", {"do": "unknown", "cluster": 77})
    assert status == 409
    assert "no cluster 77" in json.loads(content)["error"]


def test_a_script_in_a_name_stays_text(server: NamingServer) -> None:
    status, headers, content = ask(server, "POST", "edit", NAME | {"name": SCRIPT})
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert json.loads(content)["clusters"][1]["name"] == SCRIPT
    assert SCRIPT.encode() not in ask(server, "GET", "")[2]


def test_the_whole_path_name_merge_undo_save(server: NamingServer) -> None:
    path = server.session.bundle.path
    before = (path / MANIFEST).read_bytes()
    for request in (
        NAME,
        {"do": "color", "cluster": 1, "color": [1, 2, 3]},
        {"do": "merge", "clusters": [1, 2]},
        {"do": "unknown", "cluster": 3},
        {"do": "unknown", "cluster": 0},
        {"do": "undo"},
    ):
        assert ask(server, "POST", "edit", request)[0] == 200
    assert (path / MANIFEST).read_bytes() == before  # nothing is written before it is saved
    status, _, content = ask(server, "POST", "edit", {"do": "save"})
    state = json.loads(content)
    assert status == 200
    assert state["changed"] is False
    saved = Bundle(path)
    assert state["version"] == saved.version
    assert saved.manifest.served[:4].tolist() == [0, 1, 1, UNLABELLED]
    assert {label.name for label in saved.manifest.labels} == {"cluster 0", "road"}
    assert ask(server, "POST", "edit", {"do": "undo"})[0] == 200  # also beyond a save
    assert server.session.state()["changed"]


def test_a_model_that_somebody_else_changed_is_not_overwritten(server: NamingServer) -> None:
    ask(server, "POST", "edit", NAME)
    manifest = server.session.bundle.path / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    changed = manifest.read_bytes()
    status, _, content = ask(server, "POST", "edit", {"do": "save"})
    assert status == 409
    assert "changed by somebody else" in json.loads(content)["error"]
    assert manifest.read_bytes() == changed
    assert "road" in names(server)


def test_all_clusters_unknown_cannot_be_saved(server: NamingServer) -> None:
    for cluster in range(4):
        ask(server, "POST", "edit", {"do": "unknown", "cluster": cluster})
    status, _, content = ask(server, "POST", "edit", {"do": "save"})
    assert status == 409
    assert "at least one class" in json.loads(content)["error"]


def test_what_is_known_of_clusters_is_told(server: NamingServer) -> None:
    about = json.loads(ask(server, "GET", "about.json")[2])
    assert about["modalities"] == ["rgb", "thermal"]
    assert len(about["clusters"]) == 4
    assert sum(cluster["share"] for cluster in about["clusters"]) == pytest.approx(1, abs=1e-3)
    assert about["clusters"][0]["hint"] == {"name": "road", "share": 0.8, "assigned": True}
    assert about["clusters"][1]["hint"] is None


def test_a_port_that_is_taken_is_explained(server: NamingServer) -> None:
    with pytest.raises(Unim2Error, match="cannot be served on port"):
        NamingServer(server.session, server.server_port)
