"""PostgreSQL as it is run to be highly available: etcd, Patroni with two synchronous nodes, HAProxy and PgBouncer, from
Debian's packages, on loopback.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

PACKAGES = "patroni python3-etcd etcd-server haproxy pgbouncer postgresql"
PATIENCE = 60  # seconds for anything to come about
REWIND = 180  # seconds that Patroni may take to bring a node back whose writes no standby has
PG_HBA = ["local all all trust", "host all all 127.0.0.1/32 trust", "host replication all 127.0.0.1/32 trust"]

HAPROXY = """
defaults
    mode tcp
    maxconn 1000
    timeout connect 1s
    timeout check 1s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    default-server inter 500ms fall 2 rise 1 on-marked-down shutdown-sessions
{servers}
"""
PGBOUNCER = """
[databases]
* = host=127.0.0.1 port={server} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
"""


def missing(binaries: Path) -> list[str]:
    """The programs that are not here."""
    path = f"{os.environ['PATH']}:/usr/sbin:{binaries}"
    programs = ("etcd", "patroni", "haproxy", "pgbouncer", "initdb")
    return [program for program in programs if not shutil.which(program, path=path)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def until(what: str, holds: Callable[[], bool], seconds: float = PATIENCE) -> float:
    """Waits until something holds: after how many seconds it did."""
    started = time.monotonic()
    while not holds():
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"waited in vain until {what}")
        time.sleep(0.02)
    return time.monotonic() - started


class Node:
    """A PostgreSQL and the Patroni that keeps it."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.port, self.rest = free_port(), free_port()
        self.data = cluster.directory / name
        self.settings = cluster.directory / f"{name}.yaml"
        parameters = {"unix_socket_directories": str(cluster.directory), "fsync": "off"}
        self.settings.write_text(json.dumps({  # which is YAML
            "scope": "prove",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{self.rest}", "connect_address": f"127.0.0.1:{self.rest}"},
            "etcd": {"host": f"127.0.0.1:{cluster.etcd_port}"},
            "bootstrap": {
                "dcs": {
                    "ttl": 20, "loop_wait": 1, "retry_timeout": 3, "synchronous_mode": True,
                    "postgresql": {"use_pg_rewind": True, "parameters": {
                        # What a node that was away has yet to read, although its slot is gone.
                        "max_connections": 200, "wal_keep_size": "4GB"}},
                },
                "initdb": [{"encoding": "UTF8"}, {"locale": "C.UTF-8"}, "data-checksums"],
            },
            "postgresql": {
                "listen": f"127.0.0.1:{self.port}", "connect_address": f"127.0.0.1:{self.port}",
                "data_dir": str(self.data), "bin_dir": str(cluster.binaries), "pgpass": f"{self.data}.pgpass",
                "use_unix_socket": True, "parameters": parameters, "pg_hba": PG_HBA,
                "authentication": {
                    "superuser": {"username": "postgres"},
                    "replication": {"username": "replicator", "password": "replicator"},
                },
            },
        }))
        self.start()

    def start(self) -> None:
        self.process = self.cluster.spawn(f"{self.name}.log", "patroni", str(self.settings))

    def answers(self, path: str) -> bool:
        """Whether its Patroni says so, such as `/primary`."""
        with contextlib.suppress(OSError, urllib.error.URLError):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest}{path}", timeout=1) as answer:
                return answer.status == 200
        return False

    def is_primary(self) -> bool:
        return self.answers("/primary")

    def pids(self) -> list[int]:
        """Its Patroni, its PostgreSQL and all processes of that."""
        first = int((self.data / "postmaster.pid").read_text().splitlines()[0])
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [self.process.pid, first, *map(int, children)]

    def signal(self, number: int) -> None:
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Ends all of it at once, as a power cut would."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def sessions(self) -> int | None:
        """How many sessions the program has here; none where it does not answer."""
        psql = [str(self.cluster.binaries / "psql"), "-XqAt", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'profile-service'"
        done = subprocess.run([*psql, "-c", sql, "postgres"], capture_output=True, text=True, timeout=PATIENCE)
        return int(done.stdout) if done.returncode == 0 else None


class Cluster:
    """All of it. `with` starts and stops it."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.processes: list[subprocess.Popen] = []
        self.nodes: list[Node] = []

    def __enter__(self) -> Cluster:
        self._files = tempfile.TemporaryDirectory(prefix="profile-ha.", dir="/tmp")  # short enough for a socket
        self.directory = Path(self._files.name)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self) -> None:
        self.etcd_port, peers = free_port(), f"http://127.0.0.1:{free_port()}"
        client = f"http://127.0.0.1:{self.etcd_port}"
        self.spawn(
            "etcd.log", "etcd", "--name", "prove", "--data-dir", str(self.directory / "etcd"), "--enable-v2",
            "--unsafe-no-fsync", "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"prove={peers}",
        )
        self._listens(self.etcd_port)
        self.nodes.append(Node(self, "one"))
        until("there is a primary", self.nodes[0].is_primary)
        self.nodes.append(Node(self, "two"))
        self.until_synchronous()
        self.haproxy = free_port()
        servers = [f"    server {node.name} 127.0.0.1:{node.port} check port {node.rest}" for node in self.nodes]
        settings = self.directory / "haproxy.cfg"
        settings.write_text(HAPROXY.format(port=self.haproxy, servers="\n".join(servers)))
        self.spawn("haproxy.log", "/usr/sbin/haproxy", "-db", "-f", str(settings))
        self._listens(self.haproxy)

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):  # etcd last: without it Patroni would go on trying
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        # A PostgreSQL that its Patroni has not stopped: ids are used again, the directory is ours alone.
        for command in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if self._files.name.encode() in command.read_bytes():
                    os.kill(int(command.parent.name), signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
        self._files.cleanup()

    def spawn(self, log: str, *command: str) -> subprocess.Popen:
        """Starts a program as a user without privileges: PostgreSQL refuses root."""
        if os.geteuid() == 0:
            # Not by Popen, which would fork with the threads of gRPC: at times such a child ends before its program begins.
            command = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--", *command)
        with (self.directory / log).open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=self.directory
            )
        self.processes.append(process)
        return process

    def pgbouncer(self, server: int, mode: str) -> int:
        """Starts a PgBouncer before a port: its own."""
        port = free_port()
        settings = self.directory / f"pgbouncer.{port}.ini"
        settings.write_text(PGBOUNCER.format(server=server, port=port, mode=mode))
        self.spawn(f"pgbouncer.{port}.log", "/usr/sbin/pgbouncer", str(settings))
        self._listens(port)
        return port

    def primary(self) -> Node:
        until("there is a primary", lambda: any(node.is_primary() for node in self.nodes))
        return next(node for node in self.nodes if node.is_primary())

    def other(self, node: Node) -> Node:
        return next(each for each in self.nodes if each is not node)

    def until_synchronous(self) -> float:
        """Waits until the standby is synchronous."""
        def is_synchronous() -> bool:
            return any(node.answers("/synchronous") for node in self.nodes)

        return until("the standby is synchronous", is_synchronous, REWIND)

    def switch_over(self) -> None:
        """Asks Patroni to swap the nodes' roles."""
        leader = self.primary()
        body = json.dumps({"leader": leader.name, "candidate": self.other(leader).name}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{leader.rest}/switchover", body, method="POST")
        with urllib.request.urlopen(request, timeout=PATIENCE):
            pass

    def _listens(self, port: int) -> None:
        def connects() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        until(f"port {port} listens", connects)
