"""The arguments of ``docker create``: written as lines, and read as what the SDK takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker.models.containers import RUN_CREATE_KWARGS, RUN_HOST_CONFIG_KWARGS
from docker.types import HostConfig

from pytest_nixproc.managers.docker.arguments import OPTIONS, SHORT, NoArgument, arguments, full_name, keywords, mounted

SPLIT_BY_THE_SDK = ("ports", "volumes")
"""Keywords that the SDK gives to a container and to its host alike."""

API_VERSION = "1.44"

EXAMPLES: dict[str, tuple[object, object]] = {
    "add-host": (["db:10.0.0.1", "six:::1"], {"db": "10.0.0.1", "six": "::1"}),
    "blkio-weight": (500, 500),
    "cap-add": (["NET_ADMIN", "SYS_NICE"], ["NET_ADMIN", "SYS_NICE"]),
    "cap-drop": ("ALL", ["ALL"]),
    "cgroup-parent": ("/web", "/web"),
    "cgroupns": ("host", "host"),
    "cpu-period": (100000, 100000),
    "cpu-quota": ("-1", -1),
    "cpu-shares": (512, 512),
    "cpus": (1.001, 1_001_000_000),
    "cpuset-cpus": ("0-1", "0-1"),
    "cpuset-mems": (0, "0"),
    "device": (["/dev/fuse", "/dev/a:/dev/b:r"], ["/dev/fuse", "/dev/a:/dev/b:r"]),
    "device-cgroup-rule": ("c 1:3 mr", ["c 1:3 mr"]),
    "dns": (["10.0.0.1", "10.0.0.2"], ["10.0.0.1", "10.0.0.2"]),
    "dns-option": ("ndots:2", ["ndots:2"]),
    "dns-search": ("example.org", ["example.org"]),
    "domainname": ("example.org", "example.org"),
    "entrypoint": ("", ""),
    "env": (["A=1", "B=x=y", "C="], ["A=1", "B=x=y", "C="]),
    "group-add": ([27, "audio"], ["27", "audio"]),
    "hostname": ("web", "web"),
    "init": (True, True),
    "ipc": ("host", "host"),
    "label": (["a=1", "b=x=y", "bare"], {"a": "1", "b": "x=y", "bare": ""}),
    "mac-address": ("02:42:ac:11:00:02", "02:42:ac:11:00:02"),
    "memory": ("1.5g", 3 << 29),
    "memory-reservation": ("64kb", 64 << 10),
    "memory-swap": (-1, -1),
    "memory-swappiness": (0, 0),
    "mount": (
        "type=bind,source=/a,target=/b",
        [{"Target": "/b", "Source": "/a", "Type": "bind", "ReadOnly": False}],
    ),
    "network": ("none", "none"),
    "oom-kill-disable": (True, True),
    "oom-score-adj": (-500, -500),
    "pid": ("host", "host"),
    "pids-limit": (100, 100),
    "platform": ("linux/amd64", "linux/amd64"),
    "privileged": (True, True),
    "publish": (
        ["8080:80", "127.0.0.1:53:53/udp", "90"],
        {"80": ["8080"], "53/udp": [("127.0.0.1", "53")], "90": [None]},
    ),
    "publish-all": (True, True),
    "read-only": (True, True),
    "restart": ("on-failure:3", {"Name": "on-failure", "MaximumRetryCount": 3}),
    "runtime": ("runc", "runc"),
    "security-opt": ("no-new-privileges", ["no-new-privileges"]),
    "shm-size": ("64M", 64 << 20),
    "stop-signal": ("SIGINT", "SIGINT"),
    "storage-opt": ("size=10G", {"size": "10G"}),
    "sysctl": ("net.core.somaxconn=1024", {"net.core.somaxconn": "1024"}),
    "tmpfs": (["/a:size=1m,mode=1777", "/b"], {"/a": "size=1m,mode=1777", "/b": ""}),
    "tty": (True, True),
    "ulimit": (
        ["nofile=10:20", "core=0"],
        [{"Name": "nofile", "Soft": 10, "Hard": 20}, {"Name": "core", "Soft": 0, "Hard": 0}],
    ),
    "user": ("1000:1000", "1000:1000"),
    "userns": ("host", "host"),
    "uts": ("host", "host"),
    "volume": (
        ["/a:/b", "/c:/d:ro,z", "named:/e"],
        {
            "/a": {"bind": "/b", "mode": "rw"},
            "/c": {"bind": "/d", "mode": "ro,z"},
            "named": {"bind": "/e", "mode": "rw"},
        },
    ),
    "volumes-from": ("other:ro", ["other:ro"]),
    "workdir": ("/srv", "/srv"),
}
"""What a user may give for each option, and what the SDK is to get."""


def read(name: str, value: object) -> dict[str, Any]:
    """Return the SDK's keywords for one option, by way of the lines of a file."""
    return keywords(arguments([(full_name(name), value)]))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_reaches_the_sdk(name: str) -> None:
    """Each option is a keyword of the SDK, which takes the kind of value that we make for it."""
    value, expected = EXAMPLES[name]
    ((keyword, found),) = read(name, value).items()
    assert found == expected
    assert keyword in {*RUN_CREATE_KWARGS, *RUN_HOST_CONFIG_KWARGS, *SPLIT_BY_THE_SDK}
    assert keyword not in RUN_HOST_CONFIG_KWARGS or HostConfig(version=API_VERSION, **{keyword: found})


def test_examples_are_of_options() -> None:
    """The table above has nothing that is no option."""
    assert EXAMPLES.keys() == OPTIONS.keys()


def test_no_two_options_are_one_keyword() -> None:
    """No option takes the place of another in what the SDK gets."""
    used = [option.keyword for option in OPTIONS.values()]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        *((spelling, name) for spelling, name in SHORT.items()),
        *((f"-{spelling}", name) for spelling, name in SHORT.items()),
        *(("--read-only", "read-only"), ("read_only", "read-only"), ("--cap_add", "cap-add"), ("memory", "memory")),
    ],
)
def test_spellings(spelled: str, name: str) -> None:
    """The short name of an option means the same, dashes in front do not count, and underscores are dashes."""
    assert full_name(spelled) == name


def test_upper_case_counts() -> None:
    """``-p`` and ``-P`` are two options."""
    assert (full_name("-p"), full_name("-P")) == ("publish", "publish-all")


@pytest.mark.parametrize("name", ["nonsense", "name", "rm", "detach", "x", "Memory", "", "--", "memory=1g", "cidfile"])
def test_what_is_no_option(name: str) -> None:
    """What the command does not know, or we do not pass on, is refused by its name, with what is known."""
    with pytest.raises(NoArgument, match=f"'{name}' is no option of docker create that can be set") as caught:
        full_name(name)
    meant = {"Memory": "did you mean 'memory'?"}
    assert caught.value.remedy.startswith(meant.get(name, ("did you mean", "known are add-host")))


def test_lines() -> None:
    """A list stands for the option given again and again; a switch is one word."""
    lines = arguments([("env", ["A=1", ("B=2", "C=3")]), ("read-only", None), ("init", False), ("memory", "1g")])
    assert lines == ["--env", "A=1", "--env", "B=2", "--env", "C=3", "--read-only", "--init=false", "--memory", "1g"]


def test_lines_of_another_hand() -> None:
    """Lines may have any spelling, which is read the same: they could be edited, or of the original."""
    assert keywords(["-m", "1g", "--cap_add", "A", "--cap-add", "B"]) == {"mem_limit": 1 << 30, "cap_add": ["A", "B"]}


@pytest.mark.parametrize(
    "value", ["a b", "it's", '"', "$HOME", "--memory", "", "ü\udcff", "a=b", " ", "\\", "\t\r\x0b"]
)
def test_any_text_survives_the_lines(value: str) -> None:
    """Whatever a value holds, it comes back from the lines of a file."""
    lines = "".join(f"{line}\n" for line in arguments([("env", value), ("hostname", value)]))
    assert keywords(lines.split("\n")[:-1]) == {"environment": [value], "hostname": value}


def test_value_of_several_lines() -> None:
    """A line break cannot stand in a line, and is refused with the value."""
    with pytest.raises(NoArgument, match=r"'A=1\\n2' cannot be an argument of docker create"):
        arguments([("env", "A=1\n2")])


def test_path_is_a_value() -> None:
    """A path object is as good as its text."""
    assert arguments([("workdir", Path("/srv/web"))]) == ["--workdir", "/srv/web"]


@pytest.mark.parametrize("value", [None, True, False, {"a": "b"}, {"a"}, b"x", object])
def test_value_that_is_none(value: object) -> None:
    """An option that is no switch needs a value, and is not given the name of an object of Python's."""
    with pytest.raises(NoArgument, match=r"^--hostname .*: it is neither a string, a number nor a path$"):
        arguments([("hostname", value)])


def test_last_one_counts() -> None:
    """An option that counts once has the last of its values."""
    assert keywords(["--memory", "1g", "--memory", "2k", "--init", "--init=false"]) == {
        "mem_limit": 2048,
        "init": False,
    }


@pytest.mark.parametrize(
    ("value", "is_on"),
    [
        *((value, True) for value in (None, True, 1, "1", "true", "True", "TRUE", "t", "")),
        *((value, False) for value in (False, 0, "0", "false", "False", "f")),
    ],
)
def test_switch(value: object, is_on: bool) -> None:  # noqa: FBT001 - a parameter
    """A switch is on when it is named alone, and off when its value says so, as Docker spells it."""
    assert read("read-only", value) == {"read_only": is_on}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("10b", 10),
        ("2k", 2048),
        ("2K", 2048),
        ("3m", 3 << 20),
        ("1G", 1 << 30),
        ("1gb", 1 << 30),
        ("0.5k", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    """A size has the units that Docker's have, of 1024."""
    assert read("memory", text) == {"mem_limit": size}


@pytest.mark.parametrize(
    ("count", "nanoseconds"), [("2", 2 * 10**9), (".5", 5 * 10**8), ("1.001", 1_001_000_000), (0.1, 10**8)]
)
def test_processors_are_exact(count: object, nanoseconds: int) -> None:
    """A part of a processor arrives to the last digit."""
    assert read("cpus", count) == {"nano_cpus": nanoseconds}


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", {"80": [None]}),
        ("8080:80", {"80": ["8080"]}),
        ("8080:80/tcp", {"80/tcp": ["8080"]}),
        ("127.0.0.1::80", {"80": [("127.0.0.1", None)]}),
        ("[::1]:8080:80", {"80": [("::1", "8080")]}),
        ("8080-8081:80-81", {"80": ["8080"], "81": ["8081"]}),
    ],
)
def test_publish(text: str, ports: dict[str, Any]) -> None:
    """Ports are published in all the forms of the command."""
    assert read("publish", text) == {"ports": ports}


def test_one_port_published_twice() -> None:
    """A port may be published as several."""
    assert read("publish", ["8080:80", "8081:80"]) == {"ports": {"80": ["8080", "8081"]}}


@pytest.mark.parametrize(
    ("text", "target", "source", "kind", "is_read_only"),
    [
        ("target=/b", "/b", "", "volume", False),
        ("type=tmpfs,dst=/b", "/b", "", "tmpfs", False),
        ("type=bind,src=/a,destination=/b,ro", "/b", "/a", "bind", True),
        ("type=bind,src=/a,dst=/b,readonly=true", "/b", "/a", "bind", True),
        ("type=bind,src=/a,dst=/b,readonly=1", "/b", "/a", "bind", True),
        ("type=bind,src=/a,dst=/b,readonly=false", "/b", "/a", "bind", False),
        ('type=bind,"src=/a,b",dst=/b=c', "/b=c", "/a,b", "bind", False),
        ('type=bind,"src=/a ""b""",dst=/b', "/b", '/a "b"', "bind", False),
    ],
)
def test_mount(text: str, target: str, source: str, kind: str, is_read_only: bool) -> None:  # noqa: FBT001
    """A mount has its spellings, and is quoted like CSV."""
    wanted = {"Target": target, "Source": source, "Type": kind, "ReadOnly": is_read_only}
    assert read("mount", text) == {"mounts": [wanted]}


@pytest.mark.parametrize("mode", ["ro", "rw", "z", "Z", "ro,z", "rshared", "nocopy", "ro,rslave"])
def test_volume_modes(mode: str) -> None:
    """The mode of a volume is whatever comes last, and is none of the target."""
    assert read("volume", f"/a:/b:{mode}") == {"volumes": {"/a": {"bind": "/b", "mode": mode}}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("memory", value) for value in ("much", "1x", "g", "infg", "1gib")),
        *(("shm-size", value) for value in ("-", "1,5g")),
        *(("cpus", value) for value in ("two", "nan", "inf", "1,5", "")),
        *(("cpu-shares", value) for value in ("many", "1.5", "")),
        *(("publish", value) for value in ("http", "80:http", "80/what", "1-3:1-2", "")),
        *(
            ("mount", value)
            for value in (
                "type=bind,source=/a",
                "type=odd,target=/a",
                "target=",
                "",
                "target=/a,ro=maybe",
                "target=/a\rb",
            )
        ),
        *(
            ("mount", f"type=bind,source=/a,target=/b,{value}")
            for value in ("bind-propagation=rslave", "Target=/c", "x")
        ),
        *(("ulimit", value) for value in ("nofile", "nofile=", "nofile=many", "nofile=1:many")),
        *(("volume", value) for value in ("/a", "/a:", "/a::ro", "")),
        *(("restart", value) for value in ("on-failure:often",)),
        *(("read-only", value) for value in ("maybe", "2", "yes")),
        *(("sysctl", value) for value in ("net.core.somaxconn",)),
        *(("storage-opt", value) for value in ("10G",)),
        *(("add-host", value) for value in ("db",)),
        *(("uts", "private"), ("userns", "keep-id")),
    ],
)
def test_malformed_value(name: str, value: str) -> None:
    """A value that cannot be read is one error, which says the option and the value."""
    with pytest.raises(NoArgument) as caught:
        read(name, value)
    assert caught.value.brief.startswith(f"--{name} {value}: ")
    assert not caught.value.brief.endswith(": ")


def test_volume_given_twice() -> None:
    """The SDK cannot mount one source at two places; said is what to use."""
    with pytest.raises(NoArgument, match=r"^--volume /a:/b /a:/c: /a is given twice: use mount$"):
        read("volume", ["/a:/b", "/a:/c"])


def test_option_without_a_value() -> None:
    """Lines that end too early are an error, too."""
    with pytest.raises(NoArgument, match=r"^--cpu-shares : "):
        keywords(["--cpu-shares"])


def test_mounted() -> None:
    """Volumes, mounts and file systems in memory all take a place."""
    given = [("volume", "/a:/b:ro"), ("mount", "type=bind,src=/c,dst=/d"), ("tmpfs", ["/e:size=1m", "/f"])]
    assert mounted(keywords(arguments(given))) == {"/b", "/d", "/e", "/f"}
    assert mounted({}) == set()
