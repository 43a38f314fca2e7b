"""The systems that generators are tried on."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess, create_managed_process
from pytest_nixproc.model.system import ProcessesModel

HOSTILE = "a b'c\"d%e$f\\g;h#i`j\nk\täö€\udcff*?[x]{y}~!&|<>()"
"""Everything that some syntax takes for its own."""


def webapp(name: str = "webapp", **parameters: Any) -> ManagedProcess:
    """Return the process of the original's example."""
    defaults: dict[str, Any] = {
        "process": "/usr/bin/webapp",
        "daemon_args": ["-D"],
        "environment": {"PORT": 5000, "PID_FILE": f"/srv/state/run/{name}.pid"},
    }
    return create_managed_process(name=name, **defaults | parameters)


def basic() -> ProcessesModel:
    """Return one plain process."""
    return ProcessesModel({"webapp": Instance(webapp(), port=5000)})


def with_dependency() -> ProcessesModel:
    """Return a chain of three, whose keys are not the names of their processes."""
    app = Instance(webapp("webapp1"), port=5000)
    proxy = create_managed_process(name="nginx", process="/usr/sbin/nginx", args=["-p", "/srv"], dependencies=[app])
    last = create_managed_process(name="last", foreground_process="/bin/last", dependencies=[proxy, app])
    return ProcessesModel({"app": app, "proxy": Instance(proxy, port=8080), "last": Instance(last)})


def hostile_values() -> ProcessesModel:
    """Return a process whose values mean something in every syntax."""
    process = webapp(
        "web-1.local",
        description=f"Web\n### END INIT INFO {HOSTILE}",
        args=[HOSTILE, "", "-n", "$(touch /tmp/x)"],
        daemon_args=None,
        environment={"HOSTILE": HOSTILE, "EMPTY": "", "PERCENT": "%(here)s %%"},
        directory="/srv/a 'b' %s",
        initialize='echo "$HOSTILE" > "/tmp/x y"',
    )
    return ProcessesModel({"web": Instance(process)})


def daemon_only() -> ProcessesModel:
    """Return a process that can only be a daemon, with its own PID file."""
    process = create_managed_process(name="named", daemon="/usr/sbin/named", pid_file="/srv/state/run/bind/named.pid")
    return ProcessesModel({"dns": Instance(process)})


def everything_set() -> ProcessesModel:
    """Return a process with every parameter."""
    process = create_managed_process(
        name="full",
        instance_name="full1",
        description="Everything is set",
        process="/bin/both",
        args=["-a", 1],
        foreground_process="/bin/foreground",
        foreground_process_extra_args=["-f"],
        daemon="/bin/daemon",
        daemon_extra_args=["-d"],
        pid_file="/srv/state/tmp/full.pid",
        initialize="mkdir -p /srv/state/lib/full\nchown full /srv/state/lib/full",
        path=["/opt/tools", "/opt/more"],
        environment={"DEBUG": True},
        directories=["/srv/state/lib/full"],
        files={"/srv/state/lib/full/conf": {"text": "full", "user": "root"}},
        directory="/srv/state/lib",
        stop_signal="QUIT",
        reload_signal="USR1",
        limits={"open_files": 4096, "core_size": "unlimited", "locked_memory": 1000, "processes": 50},
        umask="0027",
        nice=5,
        user="full",
        credentials={"groups": {"staff": {"gid": 900}}, "users": {"full": {"uid": 901, "group": "staff"}}},
        overrides={
            "sysvinit": {"runlevels": [3, 4, 5]},
            "cygrunsrv": {"password": "it's secret"},
            "supervisord": {"autorestart": "unexpected"},
            "launchd": {"KeepAlive": {"SuccessfulExit": False}, "ProcessType": None},
            "systemd": {"Unit": {"After": "network.target"}, "Service": {"Restart": "always"}},
            "s6-rc": {"finish": None, "notificationFd": 3, "data": {"note": "for run"}},
        },
    )
    return ProcessesModel({"full": Instance(process)})


SCENARIOS = {
    "basic": basic,
    "with-dependency": with_dependency,
    "hostile-values": hostile_values,
    "daemon-only": daemon_only,
    "everything-set": everything_set,
}


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> tuple[str, ProcessesModel]:
    """Return each scenario's name and model."""
    return request.param, SCENARIOS[request.param]()


@pytest.fixture
def hostile() -> str:
    """Return text that holds everything."""
    return HOSTILE
