"""The inputs of benchmarks/fuzz.py: edit scripts, which change the files of a small valid sample."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

TOKENS = [
    *(b"", b"0", b"1", b"-1", b"2", b"0.5", b"1e309", b"-1e-320", b"nan", b"NULL", b"inf", b"True", b"null", b"[]"),
    *(b"{}", b"[1, 2]", b'"', b"'", b",", b";", b"\t", b"\n", b"\r\n", b"\n\n", b" ", b"\0", b"\xff", b"\x80", b"."),
    *(
        b"\\ud800",
        b"\\n",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\x1f\x8b",
        b"PK\x03\x04",
        "题".encode(),
        "é".encode(),
        b"\xe2\x80\xa8",
    ),
    *("１".encode(), "²".encode(), b"1_000", b"0x1f", b"9" * 25, b"9" * 5000, b"[" * 3000, b'{"a":' * 3000),
    *(b"-" * 3000 + b"1", b"question", b"concepts", b"student", b"correct", b"timestamp", b"weight", b"name", b"ids"),
    *(b"vectors", b"__import__('os')", b"../../x", b"/etc/passwd", b"shape", b"O", b"<M8[ns]", b"(", b")", b"=", b":"),
]

Files = dict[str, bytes]


def edited(files: Mapping[str, bytes], script: bytes) -> Files:
    """A sample's files after an edit script: operations of four bytes (what, which file, where), some with more."""
    made, at = dict(files), 0
    names = sorted(files)

    def more(n: int) -> bytes:
        nonlocal at
        found = script[at : at + n]
        at += n
        return found.ljust(n, b"\0")

    while at < len(script) and sum(map(len, made.values())) < 1 << 18:
        operation, which, *place = more(4)
        name = names[which % len(names)]
        data = made.get(name, b"")
        where = int.from_bytes(bytes(place), "little") % (len(data) + 1)
        made[name] = _operation(operation % 14, data, where, more, made, names)
        if operation % 14 == 8:
            del made[name]
    return made


def _operation(
    what: int, data: bytes, at: int, more: Callable[[int], bytes], files: Mapping[str, bytes], names: list[str]
) -> bytes:
    line = data.rfind(b"\n", 0, at) + 1
    end = (data.find(b"\n", at) + 1) or len(data)
    begin = max(data.rfind(mark, 0, at) for mark in (b",", b"\n", b"\t", b";", b" ", b":", b"[")) + 1
    stop = min((found for mark in b',\n\t; :]"' if (found := data.find(mark, at)) >= 0), default=len(data))
    if what == 0:
        return data[:at] + more(1) + data[at + 1 :]
    if what == 1:
        return data[:at] + TOKENS[more(1)[0] % len(TOKENS)] + data[at:]
    if what == 2:
        return data[:begin] + TOKENS[more(1)[0] % len(TOKENS)] + data[stop:]
    if what == 3:
        return data[:begin] + data[stop:]
    if what == 4:
        return data[:line] + data[end:]
    if what == 5:
        return data[:end] + data[line:end] * (1 + more(1)[0] % 40) + data[end:]
    if what == 6:
        return data[:at]
    if what == 7:
        return data[:at] + more(more(1)[0] % 24) + data[at:]
    if what == 9:
        return data[:line] + data[end:] + data[line:end]
    if what == 10:
        return TOKENS[more(1)[0] % len(TOKENS)]
    if what == 11:
        other = files.get(names[more(1)[0] % len(names)], b"")
        return data[:at] + other[: 4 * more(1)[0]] + data[at:]
    if what == 12:
        cell = data[begin:stop]
        return data[:stop] + b"," + cell + data[stop:]
    if what == 13:
        return data[:at] + bytes([(data[at : at + 1] or b"\0")[0] ^ (1 << more(1)[0] % 8)]) + data[at + 1 :]
    return data


def unpacked(folder: Path) -> Files:
    """The files of a folder; the members of a zip archive as ``archive!member``."""
    found: Files = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(folder).as_posix()
        if path.suffix in (".npz", ".xlsx", ".pt"):
            with zipfile.ZipFile(path) as held:
                found |= {f"{name}!{member}": held.read(member) for member in held.namelist()}
        else:
            found[name] = path.read_bytes()
    return found


class Disk:
    """A folder that holds some files; only those that differ from the last ones are written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: Files = {}

    def hold(self, files: Files) -> Path:
        """Make the folder hold these files and no others."""
        wanted = _packed(files)
        for name in self._held.keys() - wanted.keys():
            (self.folder / name).unlink()
        for name, data in wanted.items():
            if self._held.get(name) != data:
                path = self.folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
        self._held = wanted
        return self.folder


def _packed(files: Files) -> Files:
    made = {name: data for name, data in files.items() if "!" not in name}
    for archive in {name.partition("!")[0] for name in files if "!" in name}:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as held:
            for name, data in files.items():
                if name.startswith(archive + "!"):
                    held.writestr(zipfile.ZipInfo(name.partition("!")[2]), data)
        made[archive] = out.getvalue()
    return made
