"""Values are what frozen dataclasses are, for those who make, compare, show, copy and inspect them."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, asdict, field, fields, replace
from typing import Any

import pytest

from pytest_nixproc.values.value import Entity, Value


class Server(Value):
    """A value with a field that is needed, and others that are not."""

    name: str
    port: int = 80
    tags: list[str] = field(default_factory=list)


class TlsServer(Server):
    """A value that has more fields than the one that it derives from."""

    key: str = field(default="", repr=False)


class Limits(Value, kw_only=True):
    """A value whose fields have to be named, and that checks them."""

    soft: int = 0
    hard: int

    def __post_init__(self) -> None:
        if self.soft > self.hard:
            raise ValueError("too much")


class Port(Entity):
    """A value that is not equal to another one with the same fields."""

    number: int


class Nothing(Value):
    """A value without fields."""


WAYS: list[Callable[[], Value]] = [
    lambda: Server("web", 80, []),
    lambda: Server("web"),
    lambda: Server(port=80, name="web"),
    lambda: Server("web", tags=[]),
]


@pytest.mark.parametrize("make", WAYS)
def test_ways_to_make_a_value(make: Callable[[], Value]) -> None:
    """Fields are given in order or by name; those that are left out have their defaults."""
    assert (make(), vars(make())) == (Server("web", 80, []), {"name": "web", "port": 80, "tags": []})


WRONG: list[tuple[Callable[..., Value], tuple[Any, ...], dict[str, Any], str]] = [
    (Server, (), {}, "missing a required argument: 'name'"),
    (Server, ("web", 1, [], 2), {}, "too many positional arguments"),
    (Server, ("web",), {"name": "a"}, "multiple values for argument 'name'"),
    (Server, ("web",), {"prot": 1}, "got an unexpected keyword argument 'prot'"),
    (Limits, (1,), {"hard": 2}, "too many positional arguments"),
    (Limits, (), {"soft": 1}, "missing a required argument: 'hard'"),
    (Nothing, (1,), {}, "too many positional arguments"),
]


@pytest.mark.parametrize(("kind", "args", "kwargs", "problem"), WRONG)
def test_wrong_arguments(
    kind: Callable[..., Value], args: tuple[Any, ...], kwargs: dict[str, Any], problem: str
) -> None:
    """What a constructor cannot take is told in Python's own words, with the name of the class."""
    with pytest.raises(TypeError, match=rf"\A(Server|Limits|Nothing)\(\) {problem}"):
        kind(*args, **kwargs)


def test_defaults_are_made_for_each_value() -> None:
    """Values do not share what a factory makes, which is not called for a field that is named."""
    assert Server("a").tags is not Server("b").tags
    tags = ["x"]
    assert Server("a", tags=tags).tags is tags


def test_equality() -> None:
    """Values of one class are equal by their fields, and then have one hash; those of other classes are not."""
    assert len({Limits(hard=1), Limits(hard=1, soft=0), Limits(hard=2)}) == 2
    assert TlsServer("web") != Server("web")
    assert Nothing() == Nothing()
    with pytest.raises(TypeError, match="unhashable"):
        hash(Server("web"))


def test_entities_are_equal_to_themselves_alone() -> None:
    """Two entities with the same fields are two."""
    port, other = Port(80), Port(80)
    assert len({port, other, port}) == 2
    assert port == port
    assert replace(port) != port


def test_values_cannot_be_changed() -> None:
    """No attribute of a value can be set or deleted."""
    limits = Limits(hard=1)
    for name in ("hard", "other"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(limits, name, 2)
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'hard'"):
        del limits.hard
    assert limits.hard == 1


def test_values_check_themselves() -> None:
    """A class may check its values as soon as they are made, also when they are made of others."""
    with pytest.raises(ValueError, match="too much"):
        replace(Limits(hard=1), soft=2)


def test_tools_for_dataclasses() -> None:
    """What the standard library does with dataclasses, it does with values."""
    server = TlsServer("web", key="k")
    assert [item.name for item in fields(server)] == ["name", "port", "tags", "key"]
    assert asdict(replace(server, port=1)) == {"name": "web", "port": 1, "tags": [], "key": "k"}
    assert pickle.loads(pickle.dumps(server)) == server  # noqa: S301 - ours
    match server:
        case Server(name, port):
            assert (name, port) == ("web", 80)


def test_shown() -> None:
    """A value is shown as the call that makes it, without what is not to be shown; its signature names the fields."""
    assert repr(TlsServer("web", key="secret")) == "TlsServer(name='web', port=80, tags=[])"
    assert str(inspect.signature(Limits)) == "(*, soft: 'int' = 0, hard: 'int')"
    assert list(inspect.signature(Server).parameters) == ["name", "port", "tags"]
