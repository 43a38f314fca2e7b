"""Two instances each of nginx, redis and PostgreSQL, on ports that nobody else has."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Callable
from glob import glob

from pytest_nixproc import Instance, StateDirs, create_managed_process, ready

SEARCHED = ":".join([os.environ.get("PATH", ""), "/usr/sbin", *sorted(glob("/usr/lib/postgresql/*/bin"), reverse=True)])
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx keeps in directories for temporary files."""


def find(program: str) -> str:
    """Return where a program is; a path that does not exist, where it is not installed."""
    return shutil.which(program, path=SEARCHED) or f"/usr/bin/{program}"


def nginx(state: StateDirs, *, name: str, port: int) -> Instance:
    """Describe an nginx that greets by its name."""
    home = f"{state.state_dir}/{name}"
    lines = [
        "worker_processes 1;",
        *(["user root;"] if os.geteuid() == 0 else []),
        f"pid {state.runtime_dir}/{name}.pid;",
        f"error_log {home}/error.log;",
        "events { worker_connections 64; }",
        f"http {{ access_log {home}/access.log;",
        *(f"{kind}_temp_path {state.cache_dir}/{name}-{kind};" for kind in TEMPORARY),
        f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 'I am {name}.'; }} }} }}",
    ]
    process = create_managed_process(
        name=name,
        instance_name=name,
        process=find("nginx"),
        args=["-p", home, "-e", f"{home}/error.log", "-c", f"{home}/nginx.conf"],
        foreground_process_extra_args=["-g", "daemon off;"],
        files={f"{home}/nginx.conf": "".join(f"{line}\n" for line in lines)},
    )
    return Instance(process, port=port, bind_address="127.0.0.1", home_dir=home)


def redis(state: StateDirs, *, name: str, port: int) -> Instance:
    """Describe a redis that keeps its data in a directory of its own."""
    data, socket = f"{state.lib_dir}/{name}", f"{state.runtime_dir}/{name}.sock"
    own = ["--dir", data, "--unixsocket", socket, "--pidfile", f"{state.runtime_dir}/{name}.pid"]
    process = create_managed_process(
        name=name,
        instance_name=name,
        process=find("redis-server"),
        args=["--port", port, "--bind", "127.0.0.1", *own, "--save", "", "--appendonly", "no"],
        foreground_process_extra_args=["--daemonize", "no"],
        daemon_extra_args=["--daemonize", "yes", "--logfile", f"{state.log_dir}/{name}-own.log"],
        directories=[data],
    )
    return Instance(process, port=port, bind_address="127.0.0.1", data_dir=data, socket=socket)


def postgresql(state: StateDirs, *, name: str, port: int) -> Instance:
    """Describe a PostgreSQL whose cluster is made at its first start."""
    data, sockets = f"{state.lib_dir}/{name}", f"{state.runtime_dir}/{name}"
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": sockets,
        # Else there are segments in the machine's shared memory.
        "dynamic_shared_memory_type": "mmap",
        "fsync": "off",
    }
    initdb = [find("initdb"), "--no-sync", "--no-locale", "--auth=trust", "--username=postgres", "--pgdata", data]
    process = create_managed_process(
        name=name,
        instance_name=name,
        foreground_process=find("postgres"),
        foreground_process_args=["-D", data, *(f"--{name}={value}" for name, value in settings.items())],
        directories=[sockets],
        initialize=f"test -f {shlex.quote(data)}/PG_VERSION || {shlex.join(initdb)}\n",
        # At SIGTERM, it would wait for its clients.
        stop_signal="INT",
    )
    is_up = ready.command(find("pg_isready"), "--quiet", "--host=127.0.0.1", f"--port={port}")
    return Instance(process, port=port, bind_address="127.0.0.1", data_dir=data, ready=is_up)


CONSTRUCTORS = {"nginx": nginx, "redis": redis, "postgresql": postgresql}


def processes(
    state: StateDirs, free_port: Callable[[str], int], servers: str = "nginx,redis,postgresql"
) -> dict[str, Instance]:
    """Return two instances of each kind of server; ``servers`` are their kinds."""
    names = {f"{kind}{number}": kind for kind in servers.split(",") for number in (1, 2)}
    return {name: CONSTRUCTORS[kind](state, name=name, port=free_port(name)) for name, kind in names.items()}
