"""The basic system: one web application behind a reverse proxy."""

from __future__ import annotations

from constructors import nginx_reverse_proxy, webapp

from pytest_nixproc import Instance, StateDirs


def processes(
    state: StateDirs, *, force_disable_user_change: bool = True, base_port: int = 5000, proxy_port: int = 8080
) -> dict[str, Instance]:
    """Return the instances; the webapp's port is counted from ``base_port``."""
    port = base_port + 1
    webapp1 = Instance(port=port, dns_name="webapp1.local", pkg=webapp(state, port=port, instance_suffix="1"))
    proxy = nginx_reverse_proxy(
        state, port=proxy_port, webapps=[webapp1], force_disable_user_change=force_disable_user_change
    )
    return {"webapp1": webapp1, "nginxReverseProxy": Instance(port=proxy_port, pkg=proxy)}
