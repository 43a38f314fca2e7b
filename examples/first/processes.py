"""The first system: two web servers, one of which copies the other's page when it starts."""

from __future__ import annotations

import sys
from shlex import quote

from pytest_nixproc import Instance, StateDirs, create_managed_process


def processes(state: StateDirs, port: int = 8000, mirror_port: int = 8001) -> dict[str, Instance]:
    """Return the instances by name: ``mirror`` depends on ``original``, which is ready before it starts."""

    def web_server(name: str, port: int, *needs: Instance, page: str = "", initialize: str = "") -> Instance:
        """Describe a server of the files in a directory of its own."""
        directory = f"{state.lib_dir}/{name}"
        process = create_managed_process(
            name=name,
            foreground_process=sys.executable,
            args=["-m", "http.server", port, "--bind", "127.0.0.1"],
            directories=[directory],
            files={f"{directory}/index.html": page} if page else {},
            initialize=initialize,
            directory=directory,
            dependencies=needs,
        )
        return Instance(process, port=port)

    original = web_server("original", port, page="Hello, world\n")
    fetch = "from urllib.request import urlretrieve as get; import sys; get(*sys.argv[1:])"
    words = (sys.executable, "-c", fetch, f"http://127.0.0.1:{port}", f"{state.lib_dir}/mirror/index.html")
    mirror = web_server("mirror", mirror_port, original, initialize=" ".join(map(quote, words)))
    return {"original": original, "mirror": mirror}
