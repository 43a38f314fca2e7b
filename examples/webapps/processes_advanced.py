"""The advanced system: six web applications, four behind one reverse proxy and two behind another."""

from __future__ import annotations

from collections.abc import Sequence

from constructors import nginx_reverse_proxy, webapp

from pytest_nixproc import Instance, StateDirs


def processes(
    state: StateDirs, *, force_disable_user_change: bool = True, base_port: int = 5000, proxy_port: int = 8080
) -> dict[str, Instance]:
    """Return the instances; their ports are counted from ``base_port`` and ``proxy_port``."""

    def numbered_webapp(number: int) -> Instance:
        port = base_port + number
        pkg = webapp(state, port=port, instance_suffix=str(number))
        return Instance(port=port, dns_name=f"webapp{number}.local", pkg=pkg)

    def proxy(port: int, webapps: Sequence[Instance], suffix: str = "") -> Instance:
        pkg = nginx_reverse_proxy(
            state,
            port=port,
            webapps=webapps,
            force_disable_user_change=force_disable_user_change,
            instance_suffix=suffix,
        )
        return Instance(port=port, pkg=pkg)

    webapps = [numbered_webapp(number) for number in range(1, 7)]
    return {
        **{f"webapp{number}": webapp for number, webapp in enumerate(webapps, 1)},
        "nginxReverseProxy": proxy(proxy_port, webapps[:4]),
        "nginxReverseProxy2": proxy(proxy_port + 1, webapps[4:], "2"),
    }
