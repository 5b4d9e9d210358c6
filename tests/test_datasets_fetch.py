"""Downloads, from a server on this machine that breaks off, forgets and lies."""

from __future__ import annotations

import gzip
import hashlib
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_datasets import cifar_batch, digits, tar_bytes

import dip
from dip.datasets import cifar, idx, known, sets
from dip.datasets.fetch import fetch

CONTENT = np.random.default_rng(0).bytes(700_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
MOST = 10**6


class Server:
    """A web server in a thread, with what it is to do wrong and what it was asked for."""

    def __init__(self):
        self.files = {"/file": CONTENT}
        self.breaks_after = []  # bytes of a body after which the connection is cut, for one answer each
        self.ranges, self.lengths, self.status = True, True, 200
        self.asked = []  # path and Range of each request
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                server.answer(self)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def url(self, name="file"):
        return f"http://127.0.0.1:{self.http.server_address[1]}/{name}"

    def close(self):
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()

    def answer(self, handler):
        wanted = handler.headers.get("Range")
        self.asked.append((handler.path, wanted))
        content = self.files.get(handler.path)
        if self.status != 200 or content is None:
            handler.send_error(self.status if self.status != 200 else 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.ranges else 0
        if start >= len(content) and start:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(content)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.lengths:
            handler.send_header("Content-Length", str(len(content) - start))
        handler.end_headers()
        end = start + self.breaks_after.pop(0) if self.breaks_after else None
        handler.wfile.write(content[start:end])


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def beside(path):
    return sorted(each.name for each in path.parent.iterdir())


def test_a_file_is_fetched_once(tmp_path, server):
    path = tmp_path / "deep" / "down" / "file.bin"
    assert fetch([server.url()], path, checksum=MD5, most=MOST) == path
    assert path.read_bytes() == CONTENT
    assert beside(path) == ["file.bin"]
    fetch([server.url()], path, checksum=MD5, most=MOST)
    assert server.asked == [("/file", None)]


def test_a_broken_download_goes_on_by_itself(tmp_path, server):
    server.breaks_after = [300_000, 100_000]
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=300000-", "bytes=400000-"]


def test_a_broken_download_goes_on_in_the_next_call(tmp_path, server):
    server.breaks_after = [200_000, 0, 1]
    with pytest.raises(OSError, match=r"f could not be fetched: http.*broke off after 200001 bytes"):
        fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert not (tmp_path / "f").exists()
    assert (tmp_path / "f.part").read_bytes() == CONTENT[:200_001]
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.asked[-1] == ("/file", "bytes=200001-")
    assert beside(tmp_path / "f") == ["f"]


def test_a_server_without_ranges_begins_anew(tmp_path, server):
    server.ranges = False
    server.breaks_after = [300_000]
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_part_of_another_version_is_thrown_away(tmp_path, server):
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 1])
def test_a_part_that_is_complete_or_too_long(tmp_path, server, length):
    (tmp_path / "f.part").write_bytes((CONTENT + b"x")[:length])
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(server.asked) == (1 if length == len(CONTENT) else 2)


def test_a_wrong_checksum_leaves_nothing(tmp_path, server):
    with pytest.raises(OSError, match="another checksum than md5:0123"):
        fetch([server.url()], tmp_path / "f", checksum="md5:0123", most=MOST)
    assert len(server.asked) == 1  # asking again would give the same
    assert not (tmp_path / "f").exists()
    assert not (tmp_path / "f.part").exists()


def test_without_a_checksum_no_old_part_is_used(tmp_path, server):
    (tmp_path / "f.part").write_bytes(b"x" * 1000)
    fetch([server.url()], tmp_path / "f", checksum=None, most=MOST)
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize("lengths", [True, False])
def test_what_is_too_long_is_given_up(tmp_path, server, lengths):
    server.lengths = lengths
    with pytest.raises(OSError, match=r"gives (700000 bytes|more than the 600000)"):
        fetch([server.url()], tmp_path / "f", checksum=MD5, most=600_000)
    assert not (tmp_path / "f").exists()


def test_an_end_that_is_not_announced_is_found_by_the_checksum(tmp_path, server):
    server.lengths = False
    server.breaks_after = [1000]
    with pytest.raises(OSError, match="another checksum"):
        fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)


def test_mirrors_are_asked_in_turn(tmp_path, server):
    fetch([server.url("gone"), server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert [path for path, _ in server.asked] == ["/gone", "/file"]
    with pytest.raises(OSError, match=r"/gone answers 404 .*; .*/lost answers 404"):
        fetch([server.url("gone"), server.url("lost")], tmp_path / "g", checksum=MD5, most=MOST)


def test_a_server_in_trouble_is_asked_again_and_nobody_is_refused_in_one_line(tmp_path, server):
    server.status = 503
    with pytest.raises(OSError, match="answers 503"):
        fetch([server.url()], tmp_path / "f", checksum=MD5, most=MOST)
    assert len(server.asked) == 3
    nobody = server.url()
    server.close()
    with pytest.raises(OSError, match="could not be fetched") as caught:
        fetch([nobody], tmp_path / "f", checksum=MD5, most=MOST)
    assert "\n" not in str(caught.value)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_asked(tmp_path, server):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="is not a folder"):
        fetch([server.url()], tmp_path / "file" / "f", checksum=MD5, most=MOST)
    assert not server.asked


def test_two_at_once_make_one_file(tmp_path, server):
    server.breaks_after = [100_000, 100_000]
    threads = [
        threading.Thread(target=fetch, args=([server.url()], tmp_path / "f"), kwargs={"checksum": MD5, "most": MOST})
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert len(server.asked) == 3


def test_without_pooch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install 'deep-image-prior\[data\]'"):
        fetch(["http://127.0.0.1:9/f"], tmp_path / "f", checksum=MD5, most=MOST)
    monkeypatch.delenv("DIP_DATA", raising=False)
    monkeypatch.delenv("DIP_CACHE", raising=False)
    with pytest.raises(FileNotFoundError, match="looked in no folder: neither folder= nor DIP_DATA"):
        dip.datasets.mnist()
    with pytest.raises(ImportError, match=r"pip install 'deep-image-prior\[data\]'"):
        dip.datasets.mnist(download=True)


# the data sets through it


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.delenv("DIP_DATA", raising=False)
    monkeypatch.setenv("DIP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def md5(data):
    return hashlib.md5(data).hexdigest()


def test_mnist_is_fetched_into_the_cache_and_found_there(cache, server, monkeypatch):
    *contents, images, labels = digits(5)
    packed = [gzip.compress(content) for content in contents]
    names = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"]
    server.files = {f"/mnist/{name}": data for name, data in zip(names, packed, strict=True)}
    monkeypatch.setattr(idx, "_MIRRORS", (server.url("down/"), server.url("mnist/")))
    monkeypatch.setattr(idx, "_MD5", dict(zip(names, map(md5, packed), strict=True)))
    server.breaks_after = [100]
    for download in (True, False):
        read = dip.datasets.mnist(train=False, download=download)
        np.testing.assert_array_equal(read[0], images)
        np.testing.assert_array_equal(read[1], labels)
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == names
    assert len(server.asked) == 5


def test_cifar_is_fetched_into_a_folder(tmp_path, cache, server, monkeypatch):
    data, images, _ = cifar_batch(4)
    archive = tar_bytes([("cifar-10-batches-bin/data_batch_1.bin", data)])
    server.files = {"/cifar-10-binary.tar.gz": archive}
    monkeypatch.setattr(cifar, "_URL", server.url("cifar-10-binary.tar.gz"))
    (tmp_path / "data").mkdir()
    with pytest.raises(OSError, match="another checksum than md5:c32a1d4a"):  # the official one
        dip.datasets.cifar10(tmp_path / "data", download=True)
    monkeypatch.setattr(cifar, "_MD5", md5(archive))
    np.testing.assert_array_equal(dip.datasets.cifar10(tmp_path / "data", download=True)[0], images)
    np.testing.assert_array_equal(dip.datasets.cifar10(tmp_path / "data")[0], images)
    assert not cache.exists()


def test_picture_sets_are_fetched(cache, server, monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    hashes = {}
    for name in ("one", "two"):
        pixels = rng.integers(0, 256, (6, 5, 3), np.uint8)
        path = dip.files.write(tmp_path / f"{name}.png", pixels)
        server.files[f"/set/{name}.png"] = path.read_bytes()
        hashes[name] = hashlib.sha256(pixels.tobytes()).hexdigest()
    table = tuple(known.Known(name, (6, 5, 3), sha256) for name, sha256 in hashes.items())
    small = known.PictureSet("small", "two pictures", "nowhere", ("small",), table, address=server.url("set/"))
    monkeypatch.setitem(sets.SETS, "small", small)
    with pytest.raises(FileNotFoundError, match="fetch it with download=True"):
        dip.datasets.pictures("small")
    for download in (True, False):
        entries = dip.datasets.pictures("small", download=download)
        assert [(entry.name, entry.verified) for entry in entries] == [("one", True), ("two", True)]
    assert len(server.asked) == 2
    # one is lost, and in its place the server now has another picture: it is not kept
    (cache / "small" / "one.png").unlink()
    server.files["/set/one.png"] = server.files["/set/two.png"]
    with pytest.raises(OSError, match=r"set/one.png gives another picture: it has other pixels .*not kept"):
        dip.datasets.pictures("small", download=True)
    assert [path.name for path in (cache / "small").iterdir()] == ["two.png"]


def test_a_set_whose_files_are_known_is_fetched(cache, server, monkeypatch, tmp_path):
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    table = []
    for name in ("deep/a.png", "deep/a_mask.png"):
        data = dip.files.write(tmp_path / name, pixels // 12 * 255 if "mask" in name else pixels).read_bytes()
        server.files[f"/{name}"] = data
        table.append(known.Known(name, (4, 6), hashlib.sha256(data).hexdigest()))
    each = known.PictureSet("x", "", "", ("x",), tuple(table), of_files=True, address=server.url(""))
    monkeypatch.setitem(sets.SETS, "x", each)
    (entry,) = dip.datasets.pictures("x", download=True)
    assert entry.name == "deep/a"
    np.testing.assert_array_equal(entry.read(), pixels)
    np.testing.assert_array_equal(entry.mask(), pixels >= 12)


def test_a_set_without_an_address_says_where_to_get_it(cache):
    with pytest.raises(ValueError, match=r"set14 has no address .*Zeyde"):
        dip.datasets.pictures("set14", download=True)
