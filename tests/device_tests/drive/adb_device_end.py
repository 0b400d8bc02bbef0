"""The device's end of the adb protocol, over TCP: connect, shell v2, sync push and pull, with faults on demand.

What Android calls /data/local/tmp and /sys/class/thermal are folders below `root`; commands are run by this machine's
shell, with programs of Android's (getprop, am, run-as) that `root/bin` holds. As on a device, what a shell started dies
with its connection.

Packets: u32 command, arg0, arg1, length, sum, magic (all little-endian), then the data. Version 0x01000001 carries no
sums. A stream is opened by OPEN, acknowledged by OKAY, carries WRTE, each acknowledged by OKAY, and ends with CLSE.
"""

from __future__ import annotations

import os
import queue
import random
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

VERSION = 0x01000001
MAX_DATA = 1 << 18
CHUNK = 1 << 16
FEATURES = "shell_v2"
MAPPED = ("/data/local/tmp", "/sys/class/thermal")


@dataclass
class Faults:
    """What goes wrong; everything that is counted goes wrong once per count."""

    offline: bool = False  # takes connections and never answers
    disconnects_in_push: int = 0  # in the middle of files of at least `push_bytes`
    push_bytes: int = 20_000
    no_space: bool = False
    disconnects_in_run: int = 0  # while an engine speaks, each after a random number of lines up to `lines`
    lines: int = 100
    seed: int = 0


class DeviceEnd:
    """A device on a port of this machine; use it as a context."""

    def __init__(self, root: Path, faults: Faults | None = None, properties: dict[str, str] | None = None) -> None:
        self.root, self.faults = root, faults or Faults()
        self.random = random.Random(self.faults.seed)
        self.disconnects = 0
        self.pushes: list[str] = []
        self.commands: list[str] = []
        for folder in MAPPED:
            (root / folder[1:]).mkdir(parents=True, exist_ok=True)
        properties = {"ro.product.model": "Test Phone", "ro.product.cpu.abi": "x86_64", **(properties or {})}
        self.program("getprop", "".join(f'[ "$1" = {name} ] && echo "{value}"\n' for name, value in properties.items()))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def program(self, name: str, script: str) -> None:
        """A program of the device's: a shell script."""
        path = self.root / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\ntrue\n")
        path.chmod(0o755)

    def heat(self, celsius: float) -> None:
        zone = self.root / "sys/class/thermal/thermal_zone0"
        zone.mkdir(exist_ok=True)
        (zone / "temp").write_text(f"{round(1000 * celsius)}\n")

    def local(self, path: str) -> Path:
        return Path(self.mapped(path))

    def mapped(self, text: str) -> str:
        for folder in MAPPED:
            text = text.replace(folder, f"{self.root}{folder}")
        return text

    def __enter__(self) -> DeviceEnd:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for one in list(self._open):
            _hang_up(one)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            if not self.faults.offline:
                threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()


class _Connection:
    def __init__(self, device: DeviceEnd, connection: socket.socket) -> None:
        self.device, self.socket = device, connection
        self.lock = threading.Lock()
        self.streams: dict[int, _Stream] = {}
        self.children: list[subprocess.Popen[bytes]] = []

    def serve(self) -> None:
        try:
            while True:
                command, arg0, arg1, length, _, _ = struct.unpack("<4sIIIII", self._read(24))
                data = self._read(length)
                if command == b"CNXN":
                    banner = (
                        f"device::ro.product.name=test;ro.product.model=Test;ro.product.device=t;features={FEATURES}"
                    )
                    self.send(b"CNXN", VERSION, MAX_DATA, banner.encode())
                elif command == b"OPEN":
                    stream = _Stream(self, local=arg0 + 1000, remote=arg0)
                    self.streams[stream.local] = stream
                    service = data.rstrip(b"\0").decode()
                    threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
                elif arg1 in self.streams:
                    self.streams[arg1].take(command, data)
        except (OSError, EOFError, struct.error):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        _hang_up(self.socket)
        self.device._open.discard(self.socket)
        for child in self.children:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for stream in list(self.streams.values()):
            stream.take(b"CLSE", b"")

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        magic = struct.unpack("<I", command)[0] ^ 0xFFFFFFFF
        with self.lock:
            self.socket.sendall(struct.pack("<4sIIIII", command, arg0, arg1, len(data), 0, magic) + data)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise EOFError
            data += part
        return data


class _Stream:
    def __init__(self, connection: _Connection, local: int, remote: int) -> None:
        self.connection, self.device = connection, connection.device
        self.local, self.remote = local, remote
        self.incoming: queue.Queue[bytes | None] = queue.Queue()
        self.acknowledged = threading.Semaphore(0)
        self.write_lock = threading.Lock()
        self.closed = False
        self.rest = b""
        self.lines_left = self.device.random.randint(1, self.device.faults.lines)

    def take(self, command: bytes, data: bytes) -> None:
        if command == b"WRTE":
            self.incoming.put(data)
            self.connection.send(b"OKAY", self.local, self.remote)
        elif command == b"OKAY":
            self.acknowledged.release()
        elif command == b"CLSE":
            self.closed = True
            self.incoming.put(None)
            self.acknowledged.release()

    def serve(self, service: str) -> None:
        try:
            name, _, argument = service.partition(":")
            known = name == "sync" or name.split(",")[0] in ("shell", "exec")
            if not known:
                self.connection.send(b"CLSE", 0, self.remote)
                return
            self.connection.send(b"OKAY", self.local, self.remote)
            if name == "sync":
                self.sync()
            else:
                self.shell(argument, v2=",v2" in name)
            if not self.closed:
                self.connection.send(b"CLSE", self.local, self.remote)
        except (OSError, EOFError, BrokenPipeError):
            self.connection.drop()

    def write(self, data: bytes) -> None:
        with self.write_lock:
            for at in range(0, len(data), CHUNK):
                self.connection.send(b"WRTE", self.local, self.remote, data[at : at + CHUNK])
                self.acknowledged.acquire()
                if self.closed:
                    raise EOFError

    # Shell: v2 packets are u8 kind (1 output, 2 error, 3 exit code), u32 length, data.

    def shell(self, command: str, *, v2: bool) -> None:
        self.device.commands.append(command)
        child = subprocess.Popen(
            ["sh", "-c", self.device.mapped(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PATH": f"{self.device.root}/bin:{os.environ['PATH']}"},
            start_new_session=True,
        )
        self.connection.children.append(child)

        is_engine = "--model" in command and "_runner" in command

        def forward(kind: int, pipe: object) -> None:
            try:
                while data := os.read(pipe.fileno(), 256 if is_engine else CHUNK - 5):  # type: ignore[attr-defined]
                    if is_engine:
                        self._count_lines(data)
                    self.write(struct.pack("<BI", kind, len(data)) + data if v2 else data)
            except (OSError, EOFError):
                self.connection.drop()

        threads = [threading.Thread(target=forward, args=one) for one in ((1, child.stdout), (2, child.stderr))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        code = child.wait()
        if v2:
            self.write(struct.pack("<BIB", 3, 1, code & 0xFF))

    def _count_lines(self, data: bytes) -> None:
        faults = self.device.faults
        self.lines_left -= data.count(b"\n")
        if faults.disconnects_in_run > 0 and self.lines_left <= 0:
            faults.disconnects_in_run -= 1
            self.device.disconnects += 1
            raise EOFError

    # Sync: requests are a four-letter name, u32 length, data; answers in kind.

    def read(self, count: int) -> bytes:
        while len(self.rest) < count:
            part = self.incoming.get()
            if part is None:
                raise EOFError
            self.rest += part
        data, self.rest = self.rest[:count], self.rest[count:]
        return data

    def sync(self) -> None:
        while True:
            name, length = struct.unpack("<4sI", self.read(8))
            if name == b"QUIT":
                return
            path = self.read(length).decode()
            if name == b"STAT":
                self.write(struct.pack("<4sIII", b"STAT", *_status(self.device.local(path))))
            elif name == b"SEND":
                self._receive(path)
            elif name == b"RECV":
                self._send_file(self.device.local(path))
            else:
                self._fail(f"unknown request {name!r}")
                return

    def _receive(self, request: str) -> None:
        path = request.rpartition(",")[0]
        self.device.pushes.append(path)
        target, received, full = self.device.local(path), 0, self.device.faults.no_space
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            while True:
                name, length = struct.unpack("<4sI", self.read(8))
                if name == b"DONE":
                    break
                data = self.read(length)
                received += length
                faults = self.device.faults
                if faults.disconnects_in_push > 0 and received >= faults.push_bytes:
                    stream.write(data[: length // 2])
                    faults.disconnects_in_push -= 1
                    self.device.disconnects += 1
                    raise EOFError
                if not full:
                    stream.write(data)
        if full:
            target.unlink()
            self._fail("couldn't write: No space left on device")
        else:
            self.write(struct.pack("<4sI", b"OKAY", 0))

    def _send_file(self, path: Path) -> None:
        if not path.is_file():
            self._fail("No such file or directory")
            return
        with path.open("rb") as stream:
            while data := stream.read(CHUNK - 8):
                self.write(struct.pack("<4sI", b"DATA", len(data)) + data)
        self.write(struct.pack("<4sI", b"DONE", 0))

    def _fail(self, why: str) -> None:
        self.write(struct.pack("<4sI", b"FAIL", len(why)) + why.encode())


def _status(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mode, min(status.st_size, 0xFFFFFFFF), int(status.st_mtime))


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def adb_client(home: Path) -> Iterator[None]:
    """The client with a server of the tests' own: another port, and a home of its own for the key it makes."""
    home.mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANDROID_ADB_SERVER_PORT", str(port))
        patch.setenv("HOME", str(home))
        try:
            yield
        finally:
            subprocess.run(["adb", "kill-server"], capture_output=True, check=False)


def adb_is_here() -> bool:
    return shutil.which("adb") is not None
