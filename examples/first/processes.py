"""The first system: two web servers, one of which copies the other's page when it starts."""

from __future__ import annotations

import sys
from shlex import quote

from pytest_nixproc import Instance, ManagedProcess, StateDirs, create_managed_process


def web_server(state: StateDirs, name: str, port: int, prepare: str, *needs: Instance) -> ManagedProcess:
    """Describe a server of the files in a directory of its own, which ``prepare``, shell text, fills."""
    directory = f"{state.lib_dir}/{name}"
    return create_managed_process(
        name=name,
        foreground_process=sys.executable,
        args=["-m", "http.server", port, "--bind", "127.0.0.1"],
        initialize=f"mkdir -p {quote(directory)}; cd {quote(directory)}; {prepare}",
        directory=directory,
        dependencies=needs,
    )


def processes(state: StateDirs, port: int = 8000, mirror_port: int = 8001) -> dict[str, Instance]:
    """Return the instances by name: ``mirror`` depends on ``original``, which is ready before it starts."""
    write = "echo 'Hello, world' > index.html"
    original = Instance(port=port, pkg=web_server(state, "original", port, write))

    fetch = "from urllib.request import urlretrieve as get; import sys; get(sys.argv[1], 'index.html')"
    copy = f"{quote(sys.executable)} -c {quote(fetch)} http://127.0.0.1:{port}"
    mirror = Instance(port=mirror_port, pkg=web_server(state, "mirror", mirror_port, copy, original))

    return {"original": original, "mirror": mirror}
