"""The registry: ours and other distributions' by the same road."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pluggy
import pytest

from pytest_nixproc import hookimpl, hookspecs
from pytest_nixproc._registry import Registry, modules_of
from pytest_nixproc.checks.api import Rule
from pytest_nixproc.errors import NixprocError, UnknownName
from pytest_nixproc.hooks import PROJECT
from pytest_nixproc.managers.api import Capabilities, Manager
from pytest_nixproc.managers.sysvinit import SysvinitDriver, SysvinitGenerator
from pytest_nixproc.sources.api import Source
from pytest_nixproc.sources.config import read_config
from pytest_nixproc.testing.fake_machine import FakeMachine

HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("nixproc_"))


def plugin(hook: str, *offers: Any) -> SimpleNamespace:
    """Return a plugin of somebody else's that implements one hook."""

    def implementation() -> list[Any]:
        return list(offers)

    implementation.__name__ = hook
    return SimpleNamespace(**{hook: hookimpl(implementation)})


def manager(name: str) -> Manager:
    """Return a manager of that name."""
    return Manager(name, SysvinitGenerator, SysvinitDriver, Capabilities(prefers="daemon"))


def test_ours_are_found() -> None:
    """What the package holds is registered without being listed anywhere."""
    registry = Registry()
    assert {"supervisord", "sysvinit"} <= set(registry.managers)
    assert "host" in registry.machines
    assert {"python", "config"} <= {source.name for source in registry.sources}
    codes = [rule.code for rule in registry.rules]
    assert codes == sorted(codes)
    assert {"NP101", "NP201"} <= set(codes)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_used(hook: str) -> None:
    """Each hook of the specification is asked, once, by what the registry holds."""
    asked = []

    def implementation() -> list[Any]:
        asked.append(hook)
        return []

    implementation.__name__ = hook
    registry = Registry([SimpleNamespace(**{hook: hookimpl(implementation)})])
    assert all((registry.managers, registry.machines, registry.sources, registry.rules))
    assert asked == [hook]


def test_entry_points_keep_their_group() -> None:
    """Other distributions' entry points are found by the name that the documentation gives."""
    assert PROJECT == "pytest_nixproc"


def test_others_are_found() -> None:
    """Other distributions' offers are found like ours, and come after them."""
    source = Source("mine", (".mine",), read_config)
    rule = Rule("X001", "nothing is wrong")
    registry = Registry(
        [
            plugin("nixproc_managers", manager("mine")),
            plugin("nixproc_machines", FakeMachine),
            plugin("nixproc_sources", source),
            plugin("nixproc_checks", rule),
        ]
    )
    assert registry.manager("mine").name == "mine"
    assert list(registry.managers)[-1] == "mine"
    assert registry.machine("fake") is FakeMachine
    assert registry.sources[-1] is source
    assert registry.rules[-1] is rule


@pytest.mark.parametrize(
    ("hook", "offer", "attribute", "words"),
    [
        ("nixproc_managers", manager("sysvinit"), "managers", "two managers are registered as 'sysvinit'"),
        ("nixproc_checks", Rule("NP101", "x"), "rules", "two checks are registered as 'NP101'"),
        ("nixproc_machines", SimpleNamespace(name="host"), "machines", "two machines are registered as 'host'"),
        (
            "nixproc_sources",
            Source("python", (".x",), read_config),
            "sources",
            "two sources are registered as 'python'",
        ),
    ],
)
def test_duplicate_name_is_refused(hook: str, offer: object, attribute: str, words: str) -> None:
    """Nobody silently takes the place of somebody else."""
    registry = Registry([plugin(hook, offer)])
    with pytest.raises(NixprocError) as caught:
        getattr(registry, attribute)
    assert caught.value.brief == words
    assert caught.value.remedy == "uninstall or rename one of them"


@pytest.mark.parametrize(
    ("kind", "text"), [("manager", "unknown process manager 'x'"), ("machine", "unknown machine 'x'")]
)
def test_unknown_name_lists_the_known(kind: str, text: str) -> None:
    """An unknown name is an error that lists the known ones, sorted."""
    registry = Registry([plugin("nixproc_managers", manager("a"))])
    with pytest.raises(UnknownName, match=text) as caught:
        getattr(registry, kind)("x")
    known = registry.managers if kind == "manager" else registry.machines
    assert caught.value.remedy == f"choose one of: {', '.join(sorted(known))}"


def test_unknown_hook_is_refused() -> None:
    """A plugin that implements a hook which there is not is refused when it is registered."""
    with pytest.raises(pluggy.PluginValidationError, match="nixproc_mangers"):
        Registry([plugin("nixproc_mangers")])


def test_modules_are_in_order() -> None:
    """The modules of a package are found in the order of their names, the same on every machine."""
    from pytest_nixproc import managers

    names = [module.__name__ for module in modules_of(managers)]
    assert names == sorted(names)
    assert "pytest_nixproc.managers.sysvinit" in names
