"""Constructors: functions that describe a program once, for as many instances as a model wants.

What two instances must not share (port, PID file, directories, account) follows from the parameters.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from pytest_nixproc import Instance, ManagedProcess, StateDirs, create_managed_process

WEBAPP = Path(__file__).with_name("webapp.py")
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin") or "/usr/sbin/nginx"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
"""What nginx keeps in directories for temporary files; all of them are made, whether they are used or not."""


def webapp(
    state: StateDirs, *, port: int, instance_suffix: str = "", instance_name: str | None = None
) -> ManagedProcess:
    """Describe one webapp: a manager that prefers the foreground starts it without ``-D``, others with it."""
    name = instance_name or f"webapp{instance_suffix}"
    return create_managed_process(
        name=name,
        instance_name=name,
        description="Simple web application",
        process=sys.executable,
        # -I and -S: without the user's Python settings and packages, which it does not need, it starts faster.
        args=["-I", "-S", WEBAPP],
        daemon_extra_args=["-D"],
        environment={"PORT": port, "PID_FILE": f"{state.tmp_dir}/{name}.pid"},
        user=name,
        credentials={"groups": {name: {}}, "users": {name: {"group": name, "description": "Webapp"}}},
        overrides={"sysvinit": {"runlevels": [3, 4, 5]}},
    )


def nginx_reverse_proxy(
    state: StateDirs,
    *,
    port: int,
    webapps: Sequence[Instance],
    force_disable_user_change: bool = True,
    instance_suffix: str = "",
    instance_name: str | None = None,
) -> ManagedProcess:
    """Describe an nginx that passes requests on to the webapp whose ``dns_name`` they ask for."""
    name = instance_name or f"nginx-reverse-proxy{instance_suffix}"
    home = f"{state.state_dir}/{name}"
    configuration = f"{home}/nginx.conf"
    account = None if force_disable_user_change else name
    text = nginx_configuration(state, name, account, virtual_hosts(port, webapps))
    return create_managed_process(
        name=name,
        instance_name=name,
        description="Reverse proxy with a virtual host for each web application",
        process=NGINX,
        # -e: else it would open the log that it was built with, before it reads its configuration.
        args=["-p", home, "-e", f"{home}/logs/error.log", "-c", configuration],
        foreground_process_extra_args=["-g", "daemon off;"],
        directories=[f"{home}/logs", f"{state.cache_dir}/{name}"],
        files={configuration: f"{text}\n"},
        dependencies=[webapp.pkg for webapp in webapps],
        credentials={"groups": {name: {}}, "users": {name: {"group": name, "description": "Reverse proxy"}}},
        overrides={"sysvinit": {"runlevels": [3, 4, 5]}},
    )


def nginx_configuration(state: StateDirs, name: str, account: str | None, servers: Sequence[str]) -> str:
    """Return nginx's whole configuration: everything that it writes lies in the state directories."""
    logs = f"{state.state_dir}/{name}/logs"
    return "\n".join(
        [
            *user_directive(account),
            "worker_processes 1;",
            f"pid {quoted(f'{state.runtime_dir}/{name}.pid')};",
            f"error_log {quoted(f'{logs}/error.log')};",
            "error_log stderr;",
            "events { worker_connections 256; }",
            "http {",
            f"access_log {quoted(f'{logs}/access.log')};",
            *(f"{kind}_temp_path {quoted(f'{state.cache_dir}/{name}/{kind}')};" for kind in TEMPORARY),
            "server_names_hash_bucket_size 128;",
            "default_type text/plain;",
            *servers,
            "}",
        ]
    )


def user_directive(account: str | None) -> list[str]:
    """Return who the workers run as: only root can choose, and gets itself where users are not changed."""
    if os.getuid() != 0:
        return []
    user, group = account or pwd.getpwuid(0).pw_name, account or grp.getgrgid(os.getgid()).gr_name
    return [f"user {user} {group};"]


def virtual_hosts(port: int, webapps: Sequence[Instance]) -> list[str]:
    """Return one server for each webapp, and one for all requests that ask for none of them."""
    problem = "404 'No web application has this name.\n'" if webapps else "503 'There are no web applications.\n'"
    named = [
        f"server {{ listen 127.0.0.1:{port}; server_name {quoted(webapp.dns_name)};"
        f" location / {{ proxy_pass http://127.0.0.1:{webapp.port}; proxy_set_header Host $host; }} }}"
        for webapp in webapps
    ]
    return [f"server {{ listen 127.0.0.1:{port} default_server; return {problem}; }}", *named]


def quoted(value: str) -> str:
    """Return a value as one word of nginx's configuration."""
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
