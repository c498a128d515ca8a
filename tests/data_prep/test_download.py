import fcntl
import hashlib
import http.server
import os
import socket
import threading
import time
import types
import urllib.request
from pathlib import Path

import pytest

from ali_fast.errors import InputError
from data_prep import download
from data_prep.download import Published, fetch, obtain

DATA = os.urandom(300_000)
DIGEST = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves DATA at any path, with the faults a test asks for; keeps the Range header of each request."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.ranges = True  # whether it knows them
        self.cuts: list[int] = []  # after how many bytes to hang up, one for each request
        self.status, self.phrase = 200, None
        self.drip = 0.0  # seconds between single bytes
        self.asked: list[str | None] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def published(self, **changes: object) -> Published:
        fields = {"name": "set.bin", "size": len(DATA), "sha256": DIGEST} | changes
        return Published(base=f"http://127.0.0.1:{self.server_port}/", **fields)


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.server.status != 200:
            self.send_response(self.server.status, self.server.phrase)
            self.end_headers()
            return
        data, start = self.server.data, 0
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if self.server.cuts:
            body = body[: self.server.cuts.pop(0)]
        if self.server.drip:
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                time.sleep(self.server.drip)
        self.wfile.write(body)


@pytest.fixture
def direct(monkeypatch):
    """No proxy of this machine's answers instead."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # keeps the proxies of its first use


@pytest.fixture
def silent():
    """A file on a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Published("set.bin", len(DATA), DIGEST, f"http://127.0.0.1:{listening.getsockname()[1]}/")


@pytest.fixture
def server(monkeypatch, direct):
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    server = Server()
    yield server
    server.shutdown()
    server.server_close()


def test_a_whole_download(server, tmp_path, capsys):
    path = fetch(server.published(), tmp_path / "new")
    assert path == tmp_path / "new" / "set.bin"
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["set.bin"]
    assert "downloading http://127.0.0.1" in capsys.readouterr().out
    assert fetch(server.published(), tmp_path / "new") == path
    assert server.asked == [None], "the second call found it there"


def test_a_broken_connection_goes_on_where_it_broke(server, tmp_path):
    server.cuts = [100_000, 50_000, 1]
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert server.asked == [None, "bytes=100000-", "bytes=150000-", "bytes=150001-"]


def test_a_killed_download_goes_on_and_a_longer_part_starts_again(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(DATA[:1234])
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    (tmp_path / "set.bin").unlink()
    (tmp_path / "set.bin.part").write_bytes(DATA + b"more")
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert server.asked == ["bytes=1234-", None]


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    (tmp_path / "set.bin.part").write_bytes(DATA[:1234])
    assert fetch(server.published(), tmp_path).read_bytes() == DATA


def test_a_server_without_ranges_that_hangs_up_costs_nothing(server, tmp_path):
    server.ranges, server.cuts = False, [1000, 0, 2000]
    part = tmp_path / "set.bin.part"
    part.write_bytes(DATA[:1234])
    assert fetch(server.published(), tmp_path).read_bytes() == DATA


def test_an_answer_of_another_length_costs_no_byte_of_the_part(server, tmp_path):
    """A page to log in on, say, in place of what was asked for."""
    server.ranges, server.data = False, b"log in"
    (tmp_path / "set.bin.part").write_bytes(DATA[:200_000])
    with pytest.raises(InputError, match="it now has 6 bytes"):
        fetch(server.published(), tmp_path)
    assert (tmp_path / "set.bin.part").read_bytes() == DATA[:200_000]


def test_a_damaged_part_is_given_up_and_loaded_anew(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(b"?" * 1234)
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert server.asked == ["bytes=1234-", None]


def test_a_damaged_file_of_an_earlier_call_is_loaded_anew(server, tmp_path, capsys):
    (tmp_path / "set.bin").write_bytes(b"?" * len(DATA))
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert "damaged" in capsys.readouterr().out


def test_a_wrong_file_stays_until_a_better_one_is_there(server, tmp_path):
    """It may be the user's own, put there by hand."""
    (tmp_path / "set.bin").write_bytes(b"another release")
    server.status = 404
    with pytest.raises(InputError, match="the server says 404"):
        fetch(server.published(), tmp_path)
    assert (tmp_path / "set.bin").read_bytes() == b"another release"
    server.status = 200
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert [p.name for p in tmp_path.iterdir()] == ["set.bin"]


def test_a_wrong_digest_is_refused_and_nothing_is_left_that_looks_whole(server, tmp_path):
    (tmp_path / "set.bin.part").write_bytes(DATA[:10])  # which might be what was wrong
    with pytest.raises(
        InputError, match=r"cannot download .*: .* damaged: sha256 .*; get set\.bin another way .*--source"
    ):
        fetch(server.published(sha256="0" * 64), tmp_path)
    assert server.asked == ["bytes=10-", None]
    assert [(p.name, p.stat().st_size) for p in tmp_path.iterdir()] == [("set.bin.part", 0)]


def test_another_length_is_refused_at_once(server, tmp_path):
    with pytest.raises(InputError, match=r"it now has 300000 bytes, the published set.bin had 300001"):
        fetch(server.published(size=300_001), tmp_path)
    (tmp_path / "set.bin.part").write_bytes(DATA[:10])
    with pytest.raises(InputError, match=r"it now has 300000 bytes"):
        fetch(server.published(size=300_001), tmp_path)


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (403, 1), (503, download.ATTEMPTS)])
def test_a_server_that_says_no(server, tmp_path, status, attempts):
    server.status = status
    with pytest.raises(InputError, match=f"the server says {status}.*--source"):
        fetch(server.published(), tmp_path)
    assert len(server.asked) == attempts


@pytest.mark.parametrize("status", [404, 503])
def test_what_a_server_says_is_one_line_of_text(server, tmp_path, status):
    server.status, server.phrase = status, "\x1b[2J\x07\x9b Nicht da \xe4"
    with pytest.raises(InputError, match=rf"the server says {status} \?\[2J\?\? Nicht da \xe4[ ;]") as error:
        fetch(server.published(), tmp_path)
    assert str(error.value).isprintable()


def test_what_is_no_answer_at_all_is_said_as_text(direct, tmp_path, monkeypatch, within):
    """A login page's or a game server's bytes, say, in place of a status line."""
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"\x1b[2J\x00 hello\n")

        threading.Thread(target=answer, daemon=True).start()
        file = Published("set.bin", 10, DIGEST, f"http://127.0.0.1:{listening.getsockname()[1]}/")
        with within(20), pytest.raises(InputError, match=r"\?\[2J\? hello") as error:
            fetch(file, tmp_path)
    assert str(error.value).isprintable()


def test_a_server_that_always_hangs_up(server, tmp_path):
    server.cuts = [10] * 100
    with pytest.raises(InputError, match=r"closed after 50 of 300000 bytes \(5 attempts\).*--source"):
        fetch(server.published(), tmp_path)
    assert (tmp_path / "set.bin.part").read_bytes() == DATA[:50]


def test_a_connection_that_brings_something_is_no_failed_attempt(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "CHUNK", 10_000)
    server.cuts = [20_000] * (2 * download.ATTEMPTS)
    assert fetch(server.published(), tmp_path).read_bytes() == DATA


def test_no_network(direct, tmp_path, within):
    file = Published("set.bin", 10, DIGEST, "http://no-such-host.invalid/")
    with (
        within(60),
        pytest.raises(InputError, match=r"cannot download http://no-such-host.invalid/set.bin: .*--source"),
    ):
        fetch(file, tmp_path)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        file = Published("set.bin", 10, DIGEST, f"http://127.0.0.1:{closed.getsockname()[1]}/")
        with within(10), pytest.raises(InputError, match=r"refused.*--source"):
            fetch(file, tmp_path)


def test_a_network_that_swallows_everything_is_not_tried_again(direct, silent, tmp_path, monkeypatch, within):
    monkeypatch.setattr(download, "CONNECT_S", 0.3)
    with within(10), pytest.raises(InputError, match=r"no answer within 0 s; get set\.bin another way .*--source"):
        fetch(silent, tmp_path)


def test_silence_after_answers_may_pass(server, silent, tmp_path, monkeypatch, within):
    monkeypatch.setattr(download, "CONNECT_S", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 3)
    transfer, file = download._transfer, server.published()
    calls = []

    def sometimes(file, out, moved):
        calls.append(out.tell())
        transfer(silent if len(calls) == 2 else file, out, moved)

    monkeypatch.setattr(download, "_transfer", sometimes)
    server.cuts = [1000]
    with within(20):
        assert fetch(file, tmp_path).read_bytes() == DATA
    assert calls == [0, 1000, 1000]


@pytest.fixture
def lookups(server, monkeypatch):
    """(which name lookups fail, counted from 1; the lookups asked for)."""
    lookup, fails, asked = socket.getaddrinfo, set(), []

    def sometimes(*arguments, **keywords):
        asked.append(arguments)
        if len(asked) in fails:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return lookup(*arguments, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", sometimes)
    return fails, asked


def test_a_failed_name_lookup_after_answers_may_pass(server, lookups, tmp_path):
    fails, asked = lookups
    fails |= {2, 4}
    server.cuts = [1000, 2000]
    assert fetch(server.published(), tmp_path).read_bytes() == DATA
    assert server.asked == [None, "bytes=1000-", "bytes=3000-"]
    assert len(asked) == 5


def test_name_lookups_that_go_on_failing_keep_what_came(server, lookups, tmp_path):
    fails, asked = lookups
    fails |= set(range(2, 100))
    server.cuts = [1000]
    says = r"no connection: Temporary failure in name resolution \(5 attempts\); get set\.bin another way"
    with pytest.raises(InputError, match=says):
        fetch(server.published(), tmp_path)
    assert len(asked) == download.ATTEMPTS
    assert (tmp_path / "set.bin.part").read_bytes() == DATA[:1000]


@pytest.mark.parametrize("there", [0, 1000])
def test_a_failed_name_lookup_at_first_is_not_tried_again(server, lookups, tmp_path, there):
    fails, asked = lookups
    fails.add(1)
    (tmp_path / "set.bin.part").write_bytes(DATA[:there])
    with pytest.raises(InputError, match=r"no connection: Temporary failure in name resolution; get set\.bin another"):
        fetch(server.published(), tmp_path)
    assert len(asked) == 1
    assert (tmp_path / "set.bin.part").read_bytes() == DATA[:there]


def test_a_server_that_drips(server, tmp_path, monkeypatch, within):
    monkeypatch.setattr(download, "STALL_S", 0.3)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    server.drip = 0.02
    with within(30), pytest.raises(InputError, match=r"bytes in \d s \(2 attempts\)"):
        fetch(server.published(), tmp_path)


def test_two_downloads_of_one_file_at_once(server, tmp_path):
    with open(tmp_path / "set.bin.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is downloading it"):
            fetch(server.published(), tmp_path)
    assert server.asked == []


def test_a_full_disk_is_seen_before_anything_is_loaded(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"MiB more are needed, 0 MiB are free"):
        fetch(server.published(size=1 << 30), tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="cannot write"):
        fetch(server.published(), tmp_path / "file")
    assert server.asked == []


# ----------------------------------------------------------------------------------------------- files one has


def test_files_one_already_has(tmp_path):
    file = Published("set.bin", len(DATA), DIGEST)
    (tmp_path / "set.bin").write_bytes(DATA)
    assert obtain(file, tmp_path, Path("unused")) == tmp_path / "set.bin"
    assert obtain(file, tmp_path / "set.bin", Path("unused")) == tmp_path / "set.bin"
    with pytest.raises(InputError, match=r"no set.bin there \(no such path\)"):
        obtain(file, tmp_path / "absent", Path("unused"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no set.bin there$"):
        obtain(file, tmp_path / "empty", Path("unused"))
    (tmp_path / "set.bin").write_bytes(DATA[:-1])
    with pytest.raises(InputError, match=r"299999 bytes, the published set.bin has 300000"):
        obtain(file, tmp_path, Path("unused"))
    (tmp_path / "set.bin").write_bytes(DATA[:-1] + b"?")
    with pytest.raises(InputError, match="damaged: sha256"):
        obtain(file, tmp_path, Path("unused"))
