import io
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import fuzzing
import published
import pytest

from ali_fast.errors import InputError
from data_prep import archives

PREFIXED = "folder/" + "p" * 120 + "/short.bin"  # ustar splits it in two fields
LONG = "folder/" + "x" * 150 + "/" + "y" * 120 + ".bin"
MEMBERS = {
    "a.txt": b"one",
    "folder/empty": b"",
    "folder/b.bin": os.urandom(1500),
    PREFIXED: b"two",
    LONG: b"long" * 300,
    "z": b"z" * 512,
}


def read_tar(data: bytes, **bounds: int) -> dict[str, bytes]:
    file = io.BytesIO(data)
    return {m.name: archives.read_range(file, m, "t.tar") for m in archives.tar_ranges(file, "t.tar", **bounds)}


def read_zip(path: Path, max_bytes: int = 1 << 20) -> dict[str, bytes]:
    return {e.name: archives.read_zip_entry(path, e, max_bytes) for e in archives.zip_entries(path)}


@pytest.fixture
def as_zip(tmp_path):
    def write(data: bytes) -> Path:
        (tmp_path / "a.zip").write_bytes(data)
        return tmp_path / "a.zip"

    return write


# ---------------------------------------------------------------------------------------------------------- tar


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_tar_equals_what_tarfile_wrote(form):
    members = MEMBERS if form != tarfile.USTAR_FORMAT else {k: v for k, v in MEMBERS.items() if k != LONG}
    assert read_tar(published.tar(members, form)) == members


def test_tar_with_unicode_names_and_a_size_in_pax_and_in_base_256():
    info = tarfile.TarInfo("größe/å.bin")
    info.size, info.pax_headers = 5, {"size": "5", "comment": "a\nb"}
    data = info.tobuf(tarfile.PAX_FORMAT) + b"hello".ljust(512, b"\0") + bytes(1024)
    assert read_tar(data) == {"größe/å.bin": b"hello"}
    header = bytearray(tarfile.TarInfo("big").tobuf(tarfile.GNU_FORMAT)[:512])
    header[124:136] = b"\x80" + (600).to_bytes(11, "big")
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    assert read_tar(bytes(header) + bytes([7]) * 600 + bytes(424) + bytes(1024)) == {"big": bytes([7]) * 600}


def test_a_tar_inside_a_tar_is_read_in_place_and_does_not_end_outside():
    inner = published.tar({"x": b"123", "y": b"4" * 700})
    outer = published.tar({"first": b"-" * 600, "inner.tar": inner, "last": b"+"})
    file = io.BytesIO(outer)
    where = {m.name: m for m in archives.tar_ranges(file, "outer")}["inner.tar"]
    found = archives.tar_ranges(file, "inner", where.offset, where.offset + where.size)
    assert {m.name: outer[m.offset : m.offset + m.size] for m in found} == {"x": b"123", "y": b"4" * 700}
    with pytest.raises(InputError, match="does not fit"):
        list(archives.tar_ranges(file, "inner", where.offset, where.offset + 1636))


def test_gzip_stream_of_a_tar(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(published.tar(MEMBERS, mode="w:gz"))
    with archives.open_gzip(tmp_path / "a.tar.gz") as file:
        found = {m.name: archives.read_range(file, m, "a") for m in archives.tar_ranges(file, "a", end=1 << 20)}
    assert found == MEMBERS


@pytest.mark.parametrize("name", ["../up", "a/../../up", "/etc/passwd", "..\\up", "C:\\x", "a\\..\\..\\b"])
def test_names_that_leave_the_archive_are_refused(name, as_zip):
    with pytest.raises(InputError, match="leaves"):
        read_tar(published.tar({"fine": b"", name: b"x"}))
    with pytest.raises(InputError, match="leaves"):
        read_zip(as_zip(published.zipped({"fine": b"", name: b"x"})))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(kind):
    info = tarfile.TarInfo("innocent")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(InputError, match="'innocent' is a link, a device"):
        read_tar(info.tobuf() + bytes(1024))


def test_a_damaged_tar_header_is_refused():
    data = bytearray(published.tar({"name": b"x"}))
    data[2] ^= 1
    with pytest.raises(InputError, match="checksum"):
        read_tar(bytes(data))


def test_every_cut_of_a_tar_is_refused():
    data = published.tar({"a": b"1" * 600, "b": b"2" * 100})[:3072]  # up to the end mark
    assert read_tar(data + bytes(512)) == {"a": b"1" * 600, "b": b"2" * 100}
    for length in range(0, len(data), 64):
        with pytest.raises(InputError, match=r"cut short|not a tar"):
            read_tar(data[:length])


# ---------------------------------------------------------------------------------------------------------- zip


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_equals_what_zipfile_wrote(method, as_zip):
    members = MEMBERS | {"größe/å.bin": b"u"}
    assert read_zip(as_zip(published.zipped(members | {"folder/": b""}, method))) == members


def test_zip64_end_record(as_zip):
    """Archives of more than 65,535 members, such as CelebA's, have one; the old end record is then all ones."""
    data = published.zipped({"a": b"1", "b": b"2"})
    end = data.find(b"PK\5\6")
    entries, size, start = struct.unpack_from("<HII", data, end + 10)
    wide = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
    old = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    whole = data[:end] + wide + locator + old
    assert zipfile.ZipFile(io.BytesIO(whole)).namelist() == ["a", "b"]
    assert read_zip(as_zip(whole)) == {"a": b"1", "b": b"2"}
    with pytest.raises(InputError, match="zip64"):
        read_zip(as_zip(whole.replace(b"PK\6\6", b"PK\6\5")))


def test_zip64_sizes(as_zip):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(b"hello")
    data = bytearray(out.getvalue())
    at = data.find(b"PK\1\2")  # let the directory, too, keep its sizes in the zip64 field
    extra = struct.pack("<HHQQ", 1, 16, 5, 5)
    struct.pack_into("<II", data, at + 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<H", data, at + 30, len(extra))
    data[at + 47 : at + 47] = extra
    end = data.find(b"PK\5\6")
    struct.pack_into("<I", data, end + 12, struct.unpack_from("<I", data, end + 12)[0] + len(extra))
    assert read_zip(as_zip(bytes(data))) == {"a": b"hello"}


def test_links_in_a_zip_and_encrypted_members_are_refused(as_zip):
    link = zipfile.ZipInfo("innocent")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match="'innocent' is a link"):
        read_zip(as_zip(out.getvalue()))
    data = bytearray(published.zipped({"secret": b"x"}))
    data[data.find(b"PK\1\2") + 8] |= 1
    with pytest.raises(InputError, match="encrypted"):
        read_zip(as_zip(bytes(data)))


def test_damage_inside_a_zip_is_found(as_zip):
    data = bytearray(published.zipped({"a": b"payload" * 100}, zipfile.ZIP_STORED))
    data[100] ^= 1
    with pytest.raises(InputError, match="CRC"):
        read_zip(as_zip(bytes(data)))
    for length in range(0, len(data) - 1, 40):
        with pytest.raises(InputError):
            read_zip(as_zip(bytes(data[:length])))


# ------------------------------------------------------------------------------------------------- bombs and faults


def test_a_zip_bomb_costs_no_memory(as_zip):
    """A member that inflates to a thousand times what the directory says: stopped one byte after that."""
    packed = published.deflated_zeros(1 << 30)
    data = bytearray(published.zipped({"bomb": b"x" * 1000}, zipfile.ZIP_STORED))
    local, at = 30 + 4, data.find(b"PK\1\2")
    data = data[:local] + packed + data[at:]
    at = data.find(b"PK\1\2", local + len(packed))
    struct.pack_into("<H", data, at + 10, 8)
    struct.pack_into("<I", data, at + 20, len(packed))
    struct.pack_into("<I", data, data.rfind(b"PK\5\6") + 16, at)
    path = as_zip(bytes(data))

    def refuse() -> str:
        with pytest.raises(InputError) as caught:
            read_zip(path, 1 << 21)
        return str(caught.value)

    message, growth = fuzzing.in_child(refuse)
    assert "length or CRC" in message
    assert growth < 16 << 20


def test_an_entry_above_the_limit_is_refused_unread(as_zip):
    with pytest.raises(InputError, match="at most 1000"):
        read_zip(as_zip(published.zipped({"large": bytes(5000)})), 1000)


def test_lying_tar_headers_cost_no_memory(tmp_path):
    """A pax record and a long name that say 4 GB, a member that says 8 EB, and a gzip of 1 GB of one member."""

    def header(kind: bytes, size: int) -> bytes:
        info = tarfile.TarInfo("x")
        info.type, info.size = kind, size
        return info.tobuf(tarfile.GNU_FORMAT)[:512]

    plain = [header(b"x", 1 << 32), header(b"L", 1 << 32), header(b"0", 1 << 62)]
    bomb = header(b"0", 1 << 30)
    start = zlib.compressobj(wbits=31)
    stream = start.compress(bomb) + start.flush(zlib.Z_FULL_FLUSH) + published.deflated_zeros(1 << 30)
    (tmp_path / "bomb.tar.gz").write_bytes(stream)

    def refuse() -> str:
        messages = []
        for data in plain:
            with pytest.raises(InputError) as caught:
                read_tar(data + bytes(5000), end=5512)
            messages.append(str(caught.value))
        with pytest.raises(InputError) as caught, archives.open_gzip(tmp_path / "bomb.tar.gz") as file:
            list(archives.tar_ranges(file, "bomb", end=1 << 24))
        return " ".join([*messages, str(caught.value)])

    message, growth = fuzzing.in_child(refuse)
    assert message.count("header record") == 2
    assert message.count("does not fit") == 2
    assert growth < 16 << 20


def test_fuzz_tar():
    originals = [published.tar(MEMBERS, form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)]
    originals = [data[: data.rstrip(b"\0").__len__() + 1024] for data in originals]

    def fuzz() -> tuple[int, int]:
        inputs = fuzzing.mutations(originals, 2500, seed=1)
        return fuzzing.only_input_errors(lambda data: read_tar(data, end=len(data)), inputs)

    (accepted, refused), growth = fuzzing.in_child(fuzz)
    assert accepted + refused == 2500
    assert refused > 1000
    assert growth < 32 << 20


def test_fuzz_gzipped_tar(memory_path):
    path = memory_path / "a.tar.gz"

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        with archives.open_gzip(path) as file:
            for member in archives.tar_ranges(file, "a", end=1 << 20):
                archives.read_range(file, member, "a")

    def fuzz() -> tuple[int, int]:
        inputs = fuzzing.mutations([published.tar(MEMBERS, mode="w:gz")], 2000, seed=2)
        return fuzzing.only_input_errors(parse, inputs)

    (_, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 1500
    assert growth < 32 << 20


def test_fuzz_zip(memory_path):
    path = memory_path / "a.zip"
    members = {"folder/": b"", "a": b"1" * 50, "folder/b": os.urandom(200), "größe": b"3"}
    originals = [published.zipped(members, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]

    def parse(data: bytes) -> None:
        path.write_bytes(data)
        read_zip(path, 10_000)

    def fuzz() -> tuple[int, int]:
        return fuzzing.only_input_errors(parse, fuzzing.mutations(originals, 3000, seed=3))

    (_, refused), growth = fuzzing.in_child(fuzz)
    assert refused > 1500
    assert growth < 32 << 20
