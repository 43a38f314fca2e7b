"""Small processes models for Hypothesis, sound ones and ones that are wrong on purpose.

What is drawn is a :class:`Sketch`: data that knows no place, with the verdict that is expected of it. It makes itself a
model wherever it is deployed, of probes, which write down what they were given::

    @given(deployable_models())
    def test_instances_coexist(nixproc_deploy, sketch):
        with nixproc_deploy(sketch.processes) as system:
            assert not system.findings

What fails shrinks to the fewest and plainest instances. This module needs ``pytest-nixproc[strategies]``, and nothing
else of the package imports it. A maker of a rule finds out with :func:`conflicting_models` whether something hides from
it, the maker of a manager with :func:`deployable_models` whether there is something that it does not carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from hypothesis import strategies as st

from pytest_nixproc.errors import UnknownName
from pytest_nixproc.model import ready
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import ManagedProcess
from pytest_nixproc.testing.programs.models import HERE, dump_of, program
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.units import Mode
from pytest_nixproc.values.value import Value

Given = Mapping[str, Any]
Shape = tuple[tuple[int, ...], ...]
"""For each instance the positions of those that it depends on, all of them before its own."""

LARGEST: Final = 5
PORTS: Final = range(1024, 60000)
CONTESTED: Final = 60000
"""A port that no sound instance draws."""

SYNTAX: Final = " '\"\\$%`;&|<>()[]{}*?~#!=,:@^\t\n\r"
"""Characters that mean something to shells, INI files, units or XML."""

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
SIGNS: Final = "-_."


class Part(Value):
    """One instance of a generated model: a probe, which writes what it was given into ``dump_of(state, name)``."""

    name: str
    mode: Mode = "foreground"
    port: int | None = None
    """The TCP port on which it listens; None for none."""

    args: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    """The values of its variables ``TOLD_0``, ``TOLD_1`` and so on."""

    needs: tuple[int, ...] = ()
    """The positions of the earlier instances on which it depends."""

    @property
    def variables(self) -> dict[str, str]:
        """The probe's environment variables, named ``TOLD_0``, ``TOLD_1`` and so on."""
        return {f"TOLD_{number}": value for number, value in enumerate(self.environment)}

    def instance(self, state: StateDirs, port: int | None, dependencies: Sequence[Instance], extra: Given) -> Instance:
        """Return the probe as an instance; ``extra`` adds the parameters and attributes that cause a conflict."""
        attributes = {name: value for name, value in extra.items() if name not in ManagedProcess.PARAMETERS}
        parameters = {name: value for name, value in extra.items() if name in ManagedProcess.PARAMETERS}
        told = {"PROBE_DUMP": dump_of(state, self.name), **self.variables, **parameters.pop("environment", {})}
        if port is not None:
            told["PROBE_PORT"] = attributes["port"] = port
        else:
            attributes["ready"] = ready.file(dump_of(state, self.name))
        if self.mode == "daemon":
            told["PROBE_PID_FILE"] = parameters.get("pid_file", f"{state.runtime_dir}/{self.name}.pid")
        named = {"name": self.name, "instance_name": self.name, **parameters}
        words = (f"{HERE}/probe.py", *self.args)
        pkg = program(mode=self.mode, words=words, environment=told, dependencies=dependencies, **named)
        return Instance(pkg, **attributes)


class Conflict(Value):
    """A conflict between two instances, which can be planted in a sketch.

    Values may name the state directories in braces: ``{lib_dir}/shared``.
    """

    code: str
    """The rule that forbids it."""

    what: str
    """The conflict in words."""

    first: Given
    """Attributes of the first instance, and parameters of its process, by their names."""

    second: Given
    """The same for the second instance."""


def both(code: str, what: str, **given: Any) -> Conflict:
    """Return a conflict of two instances with the same parameters and attributes."""
    return Conflict(code, what, given, given)


def user(name: str, **account: Any) -> Given:
    """Return the parameters of a process that describes a user."""
    return {"credentials": {"users": {name: account}}}


CONFLICTS: Final = (
    both("NP101", "the same TCP port", admin_port=CONTESTED),
    both("NP101", "the same UDP port", udp_port=CONTESTED),
    Conflict(
        "NP101",
        "one port, on all addresses and on a single one",
        {"admin_port": CONTESTED},
        {"admin_port": CONTESTED, "admin_bind_ip": "127.0.0.2"},
    ),
    both("NP102", "the same PID file", pid_file="{runtime_dir}/one-for-both.pid"),
    both("NP103", "the same log file in the environment", environment={"LOG_FILE": "{log_dir}/one-for-both"}),
    both("NP104", "the same data directory", data_dir="{lib_dir}/one-for-both"),
    both("NP104", "the same socket", socket="{runtime_dir}/one-for-both"),
    Conflict("NP105", "names that differ in case only", {"name": "Twin"}, {"name": "twin"}),
    Conflict("NP106", "a user in two groups", user("one", group="a"), user("one", group="b")),
    Conflict("NP107", "a PID file outside the state", {"pid_file": "/elsewhere/own.pid"}, {}),
    both("NP111", "two programs that are told one port", environment={"LISTEN_PORT": str(CONTESTED)}),
    Conflict("NP112", "a socket whose path is too long", {"socket": "{runtime_dir}/" + "x" * 100}, {}),
    Conflict(
        "NP113",
        "a data directory inside the other's",
        {"data_dir": "{lib_dir}/one-for-both"},
        {"data_dir": "{lib_dir}/one-for-both/inner"},
    ),
    Conflict("NP114", "two users with one number", user("one", uid=4000), user("other", uid=4000)),
)
"""The conflicts that can be planted: errors of the model alone, under any manager and on any machine."""


class Sketch(Value):
    """A generated model that is not bound to state directories yet, with or without a planted conflict."""

    parts: tuple[Part, ...]
    conflict: Conflict | None = None
    """The conflict that is planted in it; None for a sound model."""

    between: tuple[int, ...] = ()
    """The positions of the two instances of the conflict; empty without one."""

    @property
    def verdict(self) -> str:
        """The code of the only rule that must find something; empty when the model has to be deployed and pass."""
        return self.conflict.code if self.conflict else ""

    def processes(self, state: StateDirs, free_port: Callable[[str], int] | None = None) -> dict[str, Instance]:
        """Return the instances for given state directories, as the function of a model file does.

        Without ``free_port`` they have the ports that were drawn; with it, as in a deployment, leased ones.
        """
        made: dict[str, Instance] = {}
        halves = (self.conflict.first, self.conflict.second) if self.conflict else ()
        planted = dict(zip(self.between, halves, strict=False))
        for number, part in enumerate(self.parts):
            port = free_port(part.name) if part.port and free_port else part.port
            needed = [made[self.parts[need].name] for need in part.needs]
            given = {name: placed(value, state) for name, value in planted.get(number, {}).items()}
            made[part.name] = part.instance(state, port, needed, given)
        return made


def placed(value: Any, state: StateDirs) -> Any:
    """Return a value with the state directories in place of their names in braces."""
    if isinstance(value, Mapping):
        return {name: placed(item, state) for name, item in value.items()}
    return value.format_map(vars(state)) if isinstance(value, str) else value


def values() -> st.SearchStrategy[str]:
    """Return text of any kind that a program can receive, rich in characters that some syntax treats specially.

    Absolute paths are left out: they may be claims. So is the probe's only option.
    """
    letters = st.sampled_from(SYNTAX) | st.characters(codec="utf-8", exclude_characters="\0")
    return st.text(letters, max_size=12).filter(lambda value: not value.startswith("/") and value != "-D")


def names() -> st.SearchStrategy[str]:
    """Return names that every manager can give a process."""
    return st.builds(str.__add__, st.sampled_from(LETTERS), st.text(LETTERS + LETTERS.upper() + SIGNS, max_size=8))


def ports() -> st.SearchStrategy[int]:
    """Return ports that anybody may listen on."""
    return st.sampled_from(PORTS)


def chains(size: int) -> Shape:
    """Return instances each of which depends on the one before it."""
    return tuple((number - 1,) if number else () for number in range(size))


def diamonds(size: int) -> Shape:
    """Return one instance, others that depend on it, and a last one that depends on these."""
    sides = tuple(range(1, size - 1))
    return ((), *((0,) for _ in sides), sides or (0,)) if size > 1 else ((),)


@st.composite
def shapes(draw: st.DrawFn, *, smallest: int = 1, largest: int = LARGEST) -> Shape:
    """Return the dependencies of instances: none, a chain, a diamond, or any others."""
    size = draw(st.integers(smallest, largest))
    anything = st.tuples(*(st.sets(st.sampled_from(range(number))) if number else EMPTY for number in range(size)))
    free = st.just(((),) * size)
    return draw(free | st.just(chains(size)) | st.just(diamonds(size)) | anything.map(in_order))


EMPTY: Final[st.SearchStrategy[set[int]]] = st.just(set())


def in_order(needs: Iterable[Iterable[int]]) -> Shape:
    """Return a shape: for each instance, the positions of the instances that it depends on, in ascending order."""
    return tuple(tuple(sorted(each)) for each in needs)


@st.composite
def deployable_models(draw: st.DrawFn, *, smallest: int = 1, largest: int = LARGEST) -> Sketch:
    """Return models that every manager can deploy, and in which no rule finds anything, not even a warning."""
    needs = draw(shapes(smallest=smallest, largest=largest))
    size = len(needs)
    # Some managers write no signs, and do not tell capital letters from small ones.
    signs = str.maketrans("", "", SIGNS)
    differing = st.lists(names(), min_size=size, max_size=size, unique_by=lambda name: name.casefold().translate(signs))
    name_of = draw(differing)
    port_of = draw(st.lists(ports(), min_size=size, max_size=size, unique=True))
    told = st.lists(values(), max_size=3).map(tuple)
    modes: st.SearchStrategy[Mode] = st.sampled_from(("foreground", "daemon"))
    parts = (
        Part(name_of[number], draw(modes), draw(st.none() | st.just(port_of[number])), draw(told), draw(told), needed)
        for number, needed in enumerate(needs)
    )
    return Sketch(tuple(parts))


def conflicting_models(*, codes: Iterable[str] = (), largest: int = LARGEST) -> st.SearchStrategy[Sketch]:
    """Return models with one conflict, which has to be refused by the rule of ``verdict`` and by no other.

    ``codes`` are the rules to plant conflicts for, by default those of all ``CONFLICTS``; raises
    :class:`~pytest_nixproc.errors.UnknownName` for one of which there is none.
    """
    known = dict.fromkeys(conflict.code for conflict in CONFLICTS)
    for code in (wanted := tuple(codes) or tuple(known)):
        if code not in known:
            raise UnknownName("planted conflict", code, known)
    chosen = st.sampled_from([conflict for conflict in CONFLICTS if conflict.code in wanted])
    return planted(deployable_models(smallest=2, largest=largest), chosen)


@st.composite
def planted(draw: st.DrawFn, sketches: st.SearchStrategy[Sketch], conflicts: st.SearchStrategy[Conflict]) -> Sketch:
    """Return sketches with a conflict between two of their instances."""
    sketch, conflict = draw(sketches), draw(conflicts)
    positions = st.sampled_from(range(len(sketch.parts)))
    pair = draw(st.lists(positions, min_size=2, max_size=2, unique=True))
    return replace(sketch, conflict=conflict, between=tuple(pair))


def models() -> st.SearchStrategy[Sketch]:
    """Return deployable and conflicting models."""
    return deployable_models() | conflicting_models()
