"""An instance: its free attributes, and the ports that they declare."""

from __future__ import annotations

from typing import Any

import pytest

from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process

WEB = create_managed_process(name="web", process="/bin/web")


@pytest.mark.parametrize(
    ("attributes", "ports"),
    [
        ({}, {}),
        ({"port": 80}, {"port": 80}),
        ({"http_port": 80, "adminPort": 81}, {"http_port": 80, "admin_port": 81}),
        ({"HTTPPort": 80}, {"http_port": 80}),
        ({"ports": {"http": 80, "https": 443}}, {"ports.http": 80, "ports.https": 443}),
        ({"port": 80, "ports": {"admin": 81}}, {"port": 80, "ports.admin": 81}),
        ({"airport": 80, "portal": 81, "port_name": 82, "support": 83}, {}),
    ],
)
def test_declared_ports(attributes: dict[str, Any], ports: dict[str, int]) -> None:
    """Numbers called port, or whose name ends in the word port, and the entries of ports, are declared; no others."""
    instance = Instance(WEB, **attributes)
    assert (instance.declared_ports, instance.faults()) == (ports, [])


@pytest.mark.parametrize(
    ("attributes", "path", "shown"),
    [
        ({"port": True}, "port", "is True"),
        ({"port": "80"}, "port", "is '80'"),
        ({"port": 0}, "port", "is 0"),
        ({"adminPort": 65536}, "admin_port", "is 65536"),
        ({"ports": {"http": -1}}, "ports.http", "is -1"),
        ({"ports": {"http": None}}, "ports.http", "is None"),
        ({"ports": [80]}, "ports", "is [80]"),
        ({"ports": 80}, "ports", "is 80"),
    ],
)
def test_wrong_port_is_a_fault(attributes: dict[str, Any], path: str, shown: str) -> None:
    """A port that no server can have is a fault which shows it; truth values and text are no numbers."""
    (fault,) = Instance(WEB, **attributes).faults()
    assert fault.path.startswith(path)
    assert shown in fault.problem


def test_truth_value_is_not_a_declared_port() -> None:
    """A truth value declares nothing, although Python counts it among the numbers."""
    assert Instance(WEB, port=True, ports={"x": True}).declared_ports == {}


def test_attributes_are_read_in_both_spellings() -> None:
    """An attribute can be given and read in either spelling."""
    instance = Instance(WEB, dnsName="web.local", base_url="/")
    assert (instance.dns_name, instance.dnsName, instance.baseURL) == ("web.local", "web.local", "/")


def test_unknown_attribute_lists_the_known_ones() -> None:
    """Reading what is not there says what is."""
    with pytest.raises(AttributeError, match=r"<ManagedProcess 'web'> has no attribute 'prot'; it has: dns_name, port"):
        _ = Instance(WEB, port=1, dns_name="x").prot
    with pytest.raises(AttributeError, match="it has: none"):
        _ = Instance(WEB).port


def test_instance_is_frozen() -> None:
    """Neither attributes nor the process can be changed later."""
    instance = Instance(WEB, port=1)
    for name in ("port", "pkg", "other"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(instance, name, 2)
    with pytest.raises(TypeError):
        instance.attributes["port"] = 2  # type: ignore[index]


def test_instance_of_something_else_is_a_fault() -> None:
    """What is given as process must be one."""
    (fault,) = Instance("/bin/web").faults()  # type: ignore[arg-type]
    assert str(fault) == "pkg: is '/bin/web', which is no managed process (use create_managed_process())"


def test_may_end_is_a_truth_value() -> None:
    """Whether an instance may end is said with a truth value."""
    assert Instance(WEB, may_end=True).faults() == []
    (fault,) = Instance(WEB, may_end="no").faults()
    assert str(fault) == "may_end: is 'no', which is no truth value (use True or False)"


@pytest.mark.parametrize("value", [-1, True, "10", None, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["start_timeout", "stop_timeout"])
def test_limits_are_numbers_of_seconds(name: str, value: object) -> None:
    """A time limit that is none is a fault of its attribute."""
    (fault,) = Instance(WEB, **{name: value}).faults()
    assert str(fault) == f"{name}: is {value!r}, which is no time limit (use a number of seconds)"
    assert Instance(WEB, **{name: 0.5}).faults() == []


def test_faults_of_the_process_are_the_instances() -> None:
    """An instance reports the faults of its process and its own."""
    instance = Instance(create_managed_process(name="web", process="web"), port=0)
    assert [fault.path for fault in instance.faults()] == ["process", "port"]


def test_repr_shows_process_and_attributes() -> None:
    """The text of an instance is how to make it."""
    assert repr(Instance(WEB, port=80)) == "Instance(<ManagedProcess 'web'>, port=80)"
