"""The files that the docker generator makes for a container."""

from __future__ import annotations

import io
import re
import shlex
import tarfile
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from docker.types import Ulimit

from pytest_nixproc.errors import Unsupported
from pytest_nixproc.managers.docker import MANAGER
from pytest_nixproc.managers.docker.arguments import keywords
from pytest_nixproc.managers.docker.generator import (
    LABEL,
    TMPFS,
    DockerGenerator,
    accounts,
    container_name,
    file_name,
)
from pytest_nixproc.managers.docker.images import packed
from pytest_nixproc.model.instance import Instance
from pytest_nixproc.model.process import create_managed_process
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.values.machine import Account, Accounts, Facts, GroupEntry, UserEntry
from pytest_nixproc.values.state import StateDirs
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import Unit

Generate = Callable[..., Unit]

EMPTY = ProcessesModel({})

CONVENTIONAL = [{"archive": "/srv/image.tar"}, {"reference": "redis:7"}]

AWKWARD = [
    "a b",
    "a-b",
    "wéb",
    "wèb",
    "web!",
    "web?",
    "web-",
    "web.1",
    "50%",
    "50%25",
    "日本",
    "w\udcffb",
    "W",
    "w",
    "~x",
]


def generated(target: Target, **parameters: Any) -> Unit:
    """Generate one process at a place."""
    process = create_managed_process(**{"name": "web", "process": "/bin/web"} | parameters)
    return MANAGER.unit("key", ProcessesModel({"key": Instance(process)}), target)


@pytest.fixture
def generate(target: Target) -> Generate:
    """Return a function that generates one process; ``image`` and ``container`` are its overrides."""

    def generate(*, image: Any = None, container: Any = None, **parameters: Any) -> Unit:
        given = {"image": image, "container": container}
        override = {part: change for part, change in given.items() if change is not None}
        return generated(target, **{"overrides": {"docker": override}} | parameters)

    return generate


def file_of(unit: Unit, suffix: str) -> str:
    """Return a file of a unit by the end of its name."""
    (content,) = (file.content for file in unit.files if file.path == f"{file_name(unit.name)}-{suffix}")
    return content


def settings_of(unit: Unit) -> dict[str, str]:
    """Return the settings, as a shell would read them."""
    return dict(word.partition("=")[::2] for word in shlex.split(file_of(unit, "docker-settings")))


def keywords_of(unit: Unit) -> dict[str, Any]:
    """Return what the SDK is told about a container."""
    return keywords(file_of(unit, "docker-createparams").split("\n")[:-1])


def argv_of(unit: Unit) -> list[str]:
    """Return what a container runs."""
    return shlex.split(file_of(unit, "docker-cmd"))


def paths_of(unit: Unit) -> list[str]:
    """Return the paths whose software a container needs."""
    return shlex.split(file_of(unit, "storepaths"))


def priorities(unit: Unit) -> list[str]:
    """Return the names of the files that tell a container's place in the order."""
    return [file.path for file in unit.files if file.path.endswith("-docker-priority")]


def test_container_of_ours(generate: Generate) -> None:
    """A container has the deployment's label, the machine's network, its state, and no writable root of its own."""
    found = keywords_of(generate(environment={"A": "1"}))
    assert found == {
        "labels": {LABEL: "deployment", f"{LABEL}.instance": "key", f"{LABEL}.root": "/srv"},
        "network_mode": "host",
        "volumes": {
            "/srv/state": {"bind": "/srv/state", "mode": "z"},
            "/srv/profile": {"bind": "/srv/profile", "mode": "ro,z"},
        },
        "user": "0:0",
        "read_only": True,
        "tmpfs": dict(entry.split(":") for entry in TMPFS),
        "environment": ["NIXPROC_DEPLOYMENT=/srv"],
        "ulimits": [Ulimit(name="nofile", soft=256, hard=4096)],
    }


def test_own_limit_of_open_files_counts(generate: Generate) -> None:
    """A limit that an override gives a container is the only one of its name."""
    found = keywords_of(generate(container={"docker_create_parameters": {"ulimit": ["nofile=99", "nproc=50"]}}))
    assert [(limit.name, limit.soft) for limit in found["ulimits"]] == [("nofile", 99), ("nproc", 50)]


def test_shared_memory_of_the_machine(target: Target) -> None:
    """A container has as much shared memory as the machine, and not the little that engines give."""
    told = replace(target, facts=Facts(shared_memory=1 << 30))
    assert keywords_of(generated(told))["shm_size"] == 1 << 30


def test_machine_has_accounts_of_its_own(target: Target) -> None:
    """A container knows the machine's accounts by name and number, and the members of its groups, without passwords."""
    users = UserEntry("root", 0, 0, "/root", "/bin/bash"), UserEntry("www-data", 33, 34, "/var/www", "/sbin/nologin")
    groups = GroupEntry("www", 34), GroupEntry("log", 4, ("www-data", "web"))
    told = replace(target, facts=Facts(users=users, groups=groups))
    assert accounts(EMPTY, told) == {
        "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        "www-data:x:33:34:www-data:/var/www:/sbin/nologin\n",
        "etc/group": "root:x:0:\nnogroup:x:65534:\nwww:x:34:\nlog:x:4:www-data,web\n",
    }
    known = Accounts({"web": Account("web", 901, "www", 34)}, {"www": 34}, {"web": ("log",)})
    told = replace(told, force_disable_user_change=False, accounts=known)
    assert accounts(EMPTY, told)["etc/passwd"].endswith("web:x:901:34:web:/:/bin/sh\n")
    assert "log:x:4:www-data,web\n" in accounts(EMPTY, told)["etc/group"]


def test_unit_tells_where_to_look(generate: Generate) -> None:
    """The unit is in the foreground behind our proxy, and has the time to stop that the deployment gives."""
    unit = generate()
    assert (unit.name, unit.mode, unit.pid_file) == ("web", "foreground", None)
    assert unit.log_file == "docker logs nixproc-deployment-web"
    assert argv_of(unit)[-3:] == ["", "", "/srv/profile/web-docker-launch"]
    assert settings_of(unit)["dockerStopTimeout"] == "5"
    assert [file.mode for file in unit.files if file.path == "web-docker-launch"] == [0o700]


@pytest.mark.parametrize(("user", "group"), [("1000", "0"), ("1000:50", "50"), ("www", "33"), ("33:adm", "adm")])
def test_script_of_another_user_of_the_container(target: Target, user: str, group: str) -> None:
    """The launch script can be read by the group that an override chooses, with the user or by it.

    Where others do not come into the deployment's directory, that needs no group.
    """
    overrides = {"docker": {"container": {"docker_create_parameters": {"user": user}}}}
    users = (UserEntry("www", 33, 33),)
    roots, others = (replace(target.facts, account=Account("it", uid, "it", uid), users=users) for uid in (0, 1000))
    for at, expected in ((roots, (0o750, group)), (others, (0o755, ""))):
        unit = generated(replace(target, facts=at), overrides=overrides)
        found = [(file.mode, file.group) for file in unit.files if file.path == "web-docker-launch"]
        assert found == [expected]


def test_files_of_an_image_are_closed_on_the_machine(tmp_path: Path, generate: Generate) -> None:
    """Other users of the machine cannot read them; those of the container can, and the modes of others stay."""
    unit = generate(overrides={"docker": {"image": {"files": {"/etc/secret": "x"}}}})
    assert {file.mode for file in unit.files if "/etc/" in file.path} == {0o600}
    for name, mode in (("secret", 0o600), ("program", 0o750)):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(mode)
    with tarfile.open(fileobj=io.BytesIO(packed(str(tmp_path)))) as archive:
        assert [archive.getmember(name).mode for name in ("secret", "program")] == [0o644, 0o750]


def test_daemon_runs_behind_the_proxy(generate: Generate) -> None:
    """A program that is a daemon only is found by its PID file, by the proxy and by us."""
    unit = generate(process=None, daemon="/bin/webd")
    paths = ["/srv/state/run/web.pid", "/srv/state/run/.web.daemon", "/srv/profile/web-docker-launch"]
    assert argv_of(unit)[-3:] == paths
    assert (unit.mode, unit.pid_file) == ("daemon", "/srv/state/run/web.pid")


@pytest.mark.parametrize(("seconds", "said"), [(0.2, "1"), (1.4, "2"), (20.0, "20")])
def test_time_to_stop(target: Target, seconds: float, said: str) -> None:
    """A container has whole seconds to stop: at least one, and never less than it may take."""
    assert settings_of(generated(replace(target, stop_seconds=seconds)))["dockerStopTimeout"] == said


def test_order_past_99_levels(target: Target) -> None:
    """The names that tell the order follow the dependencies by their number, and have two digits up to 99."""
    names = [f"p{number:03}" for number in range(102)]
    needs = {name: [before] for before, name in pairwise(names)}
    model = ProcessesModel(
        {
            name: Instance(create_managed_process(name=name, process="/x", dependencies=needs.get(name)))
            for name in names
        }
    )
    found = [path for name in names for path in priorities(MANAGER.unit(name, model, target))]
    assert [int(path.partition("-")[0]) for path in found] == list(range(1, 103))
    assert (found[0], found[98], found[101]) == (
        "01-p000-docker-priority",
        "99-p098-docker-priority",
        "102-p101-docker-priority",
    )


@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_name(generate: Generate, name: str) -> None:
    """Any name of an instance gives names that engines and file systems can have, and a text that can be written."""
    unit = generate(name=name)
    assert re.fullmatch("[a-zA-Z0-9][a-zA-Z0-9_.-]+", unit.log_file.removeprefix("docker logs "))
    assert {file.path.partition("-docker-")[0] for file in unit.files} >= {file_name(name), f"01-{file_name(name)}"}
    for file in unit.files:
        assert file.path.isascii()
        file.content.encode(errors="surrogateescape")
    assert argv_of(unit)[-1] == f"/srv/profile/{file_name(name)}-docker-launch"


def test_names_never_collide(target: Target) -> None:
    """Different instances have different containers and files, even one that is named like another's container."""
    names = set(AWKWARD)
    names |= {container_name(target, name).removeprefix("nixproc-deployment-") for name in AWKWARD}
    names |= {container_name(target, name).removeprefix("nixproc-deployment-") for name in sorted(names)}
    assert len({container_name(target, name) for name in names}) == len(names)
    assert len({file_name(name) for name in names}) == len(names)


def test_plain_name_is_in_the_containers(target: Target) -> None:
    """A name that an engine can have is found again in docker ps."""
    assert container_name(target, "web-1.local_x") == "nixproc-deployment-web-1.local_x"


def test_deployments_have_containers_of_their_own(target: Target) -> None:
    """The same instance of another deployment has another name."""
    assert container_name(replace(target, identity="other"), "web") != container_name(target, "web")


@pytest.mark.parametrize(
    "container",
    [
        {"docker_stop_timeout": 7, "use_host_network": False},
        {"dockerStopTimeout": 7, "useHostNetwork": False},
        lambda parameters: parameters | {"docker_stop_timeout": 7, "use_host_network": False},
        lambda _: {"docker_stop_timeout": 7, "use_host_network": False},
    ],
)
def test_container_overrides(generate: Generate, container: Any) -> None:
    """A mapping in either spelling or a function changes a container's parameters; what it leaves out stays."""
    unit = generate(container=container)
    assert settings_of(unit)["dockerStopTimeout"] == "7"
    found = keywords_of(unit)
    assert "network_mode" not in found
    assert "/srv/state" in found["volumes"]


@pytest.mark.parametrize("files", [{"/etc/motd": "hi\n"}, {"etc/motd": "hi\n"}])
@pytest.mark.parametrize("is_function", [True, False])
def test_image_overrides(generate: Generate, files: dict[str, str], is_function: bool) -> None:  # noqa: FBT001
    """Files make an image of the instance's own, whose name is no other's."""
    unit = generate(image=(lambda image: image | {"files": files}) if is_function else {"files": files})
    assert file_of(unit, "docker-image/etc/motd") == "hi\n"
    settings = settings_of(unit)
    assert settings["dockerImage"] == "/srv/profile/web-docker-image"
    assert settings["dockerImageTag"] != settings_of(generate())["dockerImageTag"]


@pytest.mark.parametrize("value", [None, {}, lambda parameters: parameters])
def test_nothing_overridden(generate: Generate, value: Any) -> None:
    """An override that changes nothing changes nothing."""
    parameters = ("docker_create_parameters", "docker_stop_timeout", "software", "command")
    assert generate(image=value, container=value) == generate()
    assert generate(container=dict.fromkeys(parameters)) == generate()


@pytest.mark.parametrize(("value", "is_mounted"), [(False, False), ([], False), (True, True), (["/srv/state"], True)])
def test_state_directory_of_the_original(generate: Generate, value: Any, is_mounted: bool) -> None:  # noqa: FBT001
    """Whether the state directory is mounted can be said as the original does, by a list of it."""
    found = keywords_of(generate(container={"mapStateDirVolumes": value}))
    assert ("/srv/state" in found["volumes"]) is is_mounted


@pytest.mark.parametrize(
    ("part", "name"),
    [("image", "tag"), ("image", "docker_stop_timeout"), ("container", "archive"), ("container", "dockerStopTimeOut")],
)
@pytest.mark.parametrize("is_function", [True, False])
def test_unknown_parameter(generate: Generate, part: str, name: str, is_function: bool) -> None:  # noqa: FBT001
    """An override of what there is not is refused as it is written, with the one that was meant, or all there are."""
    changes = {name: 1}
    with pytest.raises(Unsupported, match=f"docker cannot deploy 'web': its override '{part}.{name}' is no") as caught:
        generate(**{part: (lambda generated: generated | changes) if is_function else changes})
    meant = {"dockerStopTimeOut": "did you mean 'dockerStopTimeout'?"}
    assert caught.value.remedy.startswith(meant.get(name, "known are "))


@pytest.mark.parametrize(
    "override",
    [{"memory": "1g"}, {"container": {}, "network": "x"}, {"image": None}, {"container": "x"}, lambda given: given],
)
def test_override_of_neither_image_nor_container(generate: Generate, override: Any) -> None:
    """What stands directly below docker, or is no change of its part, is refused with the right form."""
    with pytest.raises(Unsupported, match="its overrides are of neither image nor container") as caught:
        generate(overrides={"docker": override})
    assert caught.value.remedy == 'give {"docker": {"image": ..., "container": ...}}'


def test_mistyped_part(generate: Generate) -> None:
    """A part that is mistyped is named, with the one that was meant."""
    with pytest.raises(Unsupported, match="neither image nor container: 'contayner'") as caught:
        generate(overrides={"docker": {"contayner": {}}})
    assert caught.value.remedy == "did you mean 'container'?"


@pytest.mark.parametrize(
    ("part", "changes", "said"),
    [
        (
            "container",
            {"docker_stop_timeout": "soon"},
            "'container.docker_stop_timeout' is 'soon', which is not a whole",
        ),
        ("container", {"docker_stop_timeout": -1}, "'container.docker_stop_timeout' is -1, which is less than nothing"),
        ("container", {"use_host_network": "no"}, "'container.use_host_network' is 'no', which is not True or False"),
        ("container", {"map_state_dir_volumes": "no"}, "'container.map_state_dir_volumes' is 'no', which is not True"),
        ("container", {"command": "sleep 1"}, "'container.command' is 'sleep 1', which is not a list"),
        ("container", {"software": "/opt/x"}, "'container.software' is '/opt/x', which is not a list"),
        ("container", {"command": ["sleep"]}, "container.command is of no use: the container runs what the process"),
        ("container", {"software": ["x"]}, r"'container.software\[0\]' is 'x', which is not an absolute path"),
        ("image", {"archive": "image.tar"}, "'image.archive' is 'image.tar', which is not an absolute path"),
        ("image", {"reference": 7}, "'image.reference' is 7, which is not a string"),
        ("image", {"files": ["/etc/motd"]}, "'image.files' is .*, which is not a mapping"),
    ],
)
def test_override_of_the_wrong_kind(generate: Generate, part: str, changes: dict[str, Any], said: str) -> None:
    """A value that no container could have is refused with its path, before anything is made."""
    with pytest.raises(Unsupported, match=f"docker cannot deploy 'web': its override {said}"):
        generate(**{part: changes})


@pytest.mark.parametrize(
    "given", [["--memory=1g"], [{"value": "1g"}], [["memory", "1g"]], "memory", 5, [None]], ids=repr
)
def test_options_of_no_known_form(generate: Generate, given: Any) -> None:
    """Options are a mapping or a list of names and values; anything else is refused as it was given."""
    with pytest.raises(Unsupported, match=r"docker_create_parameters has .*, not a list of name and value") as caught:
        generate(container={"docker_create_parameters": given})
    assert repr(given) in caught.value.brief


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nonsense": 1}, "'nonsense' is no option of docker create"),
        ({"name": "mine"}, "'name' is no option of docker create"),
        ({"memory": "much"}, "--memory much: "),
        ({"env": "A=1\nB=2"}, "it has more than one line"),
        ([{"name": "hostname"}], "--hostname None: "),
    ],
)
def test_options_that_are_none(generate: Generate, options: Any, said: str) -> None:
    """Options that the engine would not understand are refused with the instance, when files are generated."""
    with pytest.raises(Unsupported, match=rf"docker cannot deploy 'web': .*{said}"):
        generate(container={"docker_create_parameters": options})


@pytest.mark.parametrize(
    ("options", "keyword", "value"),
    [
        ({"network": "bridge"}, "network_mode", "bridge"),
        ({"net": "none"}, "network_mode", "none"),
        ({"-u": "1:2"}, "user", "1:2"),
        ({"user": "web"}, "user", "web"),
        ({"read-only": False}, "read_only", False),
        ([{"name": "read_only", "value": "false"}], "read_only", False),
        ({"memory": "1g"}, "mem_limit", 1 << 30),
    ],
)
def test_option_of_the_user_counts(generate: Generate, options: Any, keyword: str, value: object) -> None:
    """What a user sets takes the place of ours where one value counts, whatever its spelling."""
    unit = generate(container={"docker_create_parameters": options})
    assert keywords_of(unit)[keyword] == value
    lines = file_of(unit, "docker-createparams").splitlines()
    assert sum(line.partition("=")[0] == lines[0].partition("=")[0] for line in lines) == 1


@pytest.mark.parametrize("form", [dict, lambda options: [{"name": name, "value": options[name]} for name in options]])
def test_options_of_the_user_come_first_and_add(generate: Generate, form: Callable[[dict[str, Any]], Any]) -> None:
    """What can be given again is added to, the user's before ours; ours cannot be taken away."""
    options = {"env": ["A=1", f"{'NIXPROC_DEPLOYMENT'}=mine"], "label": f"{LABEL}=mine", "volume": "/a:/b:ro"}
    unit = generate(container={"docker_create_parameters": form(options)})
    found = keywords_of(unit)
    assert found["environment"] == ["A=1", "NIXPROC_DEPLOYMENT=mine", "NIXPROC_DEPLOYMENT=/srv"]
    assert found["labels"][LABEL] == "deployment"
    assert list(found["volumes"]) == ["/a", "/srv/state", "/srv/profile"]
    assert file_of(unit, "docker-createparams").startswith("--env\nA=1\n--env\nNIXPROC_DEPLOYMENT=mine\n--label\n")


@pytest.mark.parametrize(
    "options",
    [{"tmpfs": "/tmp:size=1m"}, {"volume": "/a:/tmp"}, {"mount": "type=bind,source=/a,target=/tmp"}],
    ids=str,
)
def test_place_that_the_user_mounts_on(generate: Generate, options: Any) -> None:
    """What a user mounts on a place is what is there: an engine mounts no two things on one."""
    found = keywords_of(generate(container={"docker_create_parameters": options}))
    assert found["tmpfs"].keys() - {"/tmp"} == {"/var/tmp", "/run"}
    assert found["tmpfs"].get("/tmp") == ("size=1m" if "tmpfs" in options else None)


@pytest.mark.parametrize(
    ("option", "has_init"),
    [(True, True), (None, True), ("true", True), (False, False), ("false", False), (0, False), ([True, False], False)],
)
def test_init_of_the_engine(generate: Generate, option: object, has_init: bool) -> None:  # noqa: FBT001
    """With the engine's own init a program needs none of ours; with that switched off it does."""
    unit = generate(container={"docker_create_parameters": [{"name": "init", "value": option}]})
    script = "/srv/profile/web-docker-launch"
    assert keywords_of(unit)["init"] is has_init
    assert (argv_of(unit) == [script]) is has_init
    assert argv_of(unit)[-1] == script


def test_daemon_needs_the_proxy_besides_an_init(generate: Generate) -> None:
    """A daemon leaves its starter: under the engine's init, too, something has to stand for it."""
    unit = generate(process=None, daemon="/bin/webd", container={"docker_create_parameters": {"init": True}})
    assert argv_of(unit)[-3] == "/srv/state/run/web.pid"


@pytest.mark.parametrize(
    ("parameters", "has_store"),
    [
        ({}, False),
        ({"process": "/nix/store/x-web/bin/web"}, True),
        ({"environment": {"CONFIG": "/nix/store/x.conf"}}, True),
        ({"args": ["--config=/nix/store/x.conf"]}, True),
        ({"path": ["/nix/store/x-tools"]}, True),
        ({"process": "/nix/storehouse/web"}, False),
        ({"container": {"use_host_nix_store": True}}, True),
        ({"container": {"useHostNixStore": False}, "process": "/nix/store/x/bin/web"}, False),
    ],
)
def test_nix_store(generate: Generate, parameters: dict[str, Any], has_store: bool) -> None:  # noqa: FBT001
    """The Nix store is there as a whole when anything of it is named, unless the override says otherwise."""
    volumes = keywords_of(generate(**parameters))["volumes"]
    assert volumes.get("/nix/store") == ({"bind": "/nix/store", "mode": "ro"} if has_store else None)


@pytest.mark.parametrize(("nice", "added"), [(-1, ["SYS_NICE"]), (0, None), (5, None), (None, None)])
def test_nice(generate: Generate, nice: int | None, added: list[str] | None) -> None:
    """A program that takes precedence needs the right to."""
    assert keywords_of(generate(nice=nice)).get("cap_add") == added


@pytest.mark.parametrize("name", ["use_host_network", "map_state_dir_volumes"])
def test_what_can_be_switched_off(generate: Generate, name: str) -> None:
    """Network and state of the machine are there unless the override says otherwise, one by one."""
    found, usual = keywords_of(generate(container={name: False})), keywords_of(generate())
    assert ("network_mode" in found) == (name != "use_host_network")
    assert ("/srv/state" in found["volumes"]) == (name != "map_state_dir_volumes")
    assert "/srv/profile" in found["volumes"]
    assert found.keys() | {"network_mode"} == usual.keys()


@pytest.mark.parametrize("path", ["/a:b", "/a\nb", "/a\tb", "/a\x7f", "/a\udcff"])
def test_place_that_cannot_be_mounted(target: Target, path: str) -> None:
    """A state root in whose name a colon or a control character stands is refused with the remedy."""
    for told in (replace(target, directory=path), replace(target, state=StateDirs.under(path))):
        with pytest.raises(Unsupported, match=f"{re.escape(repr(path))} cannot be mounted as a volume") as caught:
            DockerGenerator().generate_shared(EMPTY, told)
        assert "--nixproc-state-root" in caught.value.remedy


@pytest.mark.parametrize("path", ["/a b", "/a,b", "/ä", "/a'b\"", "/a=b"])
def test_place_that_can_be_mounted(target: Target, path: str) -> None:
    """Any other name is a volume's, and stays whole in its line."""
    told = replace(target, directory=f"{path}/p", state=StateDirs.under(f"{path}/s"))
    assert DockerGenerator().generate_shared(EMPTY, told)
    unit = generated(told)
    assert list(keywords_of(unit)["volumes"]) == [f"{path}/s", f"{path}/p"]
    assert argv_of(unit)[-1] == f"{path}/p/web-docker-launch"


def test_image_of_two_origins(generate: Generate) -> None:
    """An image comes from an archive or from a registry; both are too much."""
    with pytest.raises(Unsupported, match="its image has both an archive and a reference") as caught:
        generate(image={"archive": "/srv/image.tar", "reference": "redis:7"})
    assert caught.value.remedy == "name one of them"


@pytest.mark.parametrize("image", CONVENTIONAL, ids=str)
def test_conventional_container_is_left_alone(generate: Generate, image: dict[str, str]) -> None:
    """A container of a foreign image has nothing of ours but its label, and the precedence is its own affair."""
    unit = generate(image=image, user="web", nice=-5, path=["/nix/store/x"], environment={"A": "/opt/x"})
    assert keywords_of(unit) == {"labels": {LABEL: "deployment", f"{LABEL}.instance": "key", f"{LABEL}.root": "/srv"}}
    assert (argv_of(unit), paths_of(unit)) == ([], [])
    assert not [file for file in unit.files if file.path.endswith("-launch")]
    assert settings_of(unit)["dockerConventional"]


@pytest.mark.parametrize("image", CONVENTIONAL, ids=str)
def test_command_of_a_conventional_container(generate: Generate, image: dict[str, str]) -> None:
    """A foreign image's command is what the override says, word by word; and options can be set."""
    container = {"command": ["redis-server", "--port", 6379, "a b"], "docker_create_parameters": {"memory": "1g"}}
    unit = generate(image=image, container=container)
    assert argv_of(unit) == ["redis-server", "--port", "6379", "a b"]
    assert keywords_of(unit)["mem_limit"] == 1 << 30


def test_conventional_container_may_ask_for_more(generate: Generate) -> None:
    """Network and state of the machine are a foreign image's too if it wants them."""
    container = {"use_host_network": True, "map_state_dir_volumes": True}
    found = keywords_of(generate(image={"reference": "redis:7"}, container=container))
    assert found["network_mode"] == "host"
    assert list(found["volumes"]) == ["/srv/state"]


def test_name_of_an_image(generate: Generate) -> None:
    """A reference is used by its own name; an archive is loaded under one of ours, which is its own."""
    reference = settings_of(generate(image={"reference": "redis:7"}))
    assert (reference["dockerImage"], reference["dockerImageTag"]) == ("", "redis:7")
    archives = [settings_of(generate(image={"archive": path})) for path in ("/srv/a.tar", Path("/srv/b.tar"))]
    assert [settings["dockerImage"] for settings in archives] == ["/srv/a.tar", "/srv/b.tar"]
    tags = {settings["dockerImageTag"] for settings in [*archives, settings_of(generate())]}
    assert len(tags) == 3
    assert all(re.fullmatch("nixproc-deployment-[0-9a-f]{8}:latest", tag) for tag in tags)


def accounts_of(target: Target, **parameters: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Return the rows of an image's passwd and group, by name."""
    process = create_managed_process(name="web", process="/bin/web", **parameters)
    files = DockerGenerator().generate_shared(ProcessesModel({"web": Instance(process)}), target)
    contents = {file.path: [row.split(":") for row in file.content.splitlines()] for file in files}
    users, groups = contents["docker-image/etc/passwd"], contents["docker-image/etc/group"]
    assert {len(row) for row in users} == {7}
    assert {len(row) for row in groups} == {4}
    return {row[0]: row[2:4] for row in users}, {row[0]: row[2:3] for row in groups}


def test_accounts_of_everybody(target: Target) -> None:
    """An image knows root, nobody and the caller, by name and number."""
    facts = replace(target.facts, account=Account("me", 1000, "us", 100))
    users, groups = accounts_of(replace(target, facts=facts))
    assert users == {"root": ["0", "0"], "me": ["1000", "100"], "nobody": ["65534", "65534"]}
    assert groups == {"root": ["0"], "us": ["100"], "nogroup": ["65534"]}


@pytest.mark.parametrize(
    ("user", "numbers"),
    [
        ({"uid": 901, "group": "staff"}, ["901", "900"]),
        ({"uid": 901}, ["901", "901"]),
        ({"uid": 901, "group": "absent"}, ["901", "901"]),
        ({}, None),
    ],
)
def test_accounts_of_the_model(target: Target, user: dict[str, Any], numbers: list[str] | None) -> None:
    """An image knows whom processes switch to, where the model says their numbers, and users are changed at all."""
    credentials = {"groups": {"staff": {"gid": 900}, "unnumbered": {}}, "users": {"web": user}}
    users, groups = accounts_of(replace(target, force_disable_user_change=False), credentials=credentials)
    assert users.get("web") == numbers
    assert (groups.get("staff"), groups.get("unnumbered")) == (["900"], None)
    assert "web" not in accounts_of(target, credentials=credentials)[0]


def test_accounts_of_the_machine(target: Target) -> None:
    """What the machine has counts more than what the model says, memberships too."""
    users: dict[str, Any] = {"web": {"uid": 1, "extra_groups": ["log"]}, "new": {"uid": 7}}
    credentials: dict[str, Any] = {"groups": {"log": {}}, "users": users}
    known = Accounts({"web": Account("web", 901, "staff", 900)}, {"staff": 900, "log": 902}, {"web": ("log",)})
    told = replace(target, force_disable_user_change=False, accounts=known)
    numbers, groups = accounts_of(told, credentials=credentials)
    assert (numbers["web"], numbers["new"]) == (["901", "900"], ["7", "7"])
    assert (groups["staff"], groups["log"]) == (["900"], ["902"])
    model = ProcessesModel(
        {"it": Instance(create_managed_process(name="it", process="/bin/x", credentials=credentials))}
    )
    assert "log:x:902:web\n" in accounts(model, told)["etc/group"]


def test_generation_is_repeatable(generate: Generate) -> None:
    """The same process gives the same files, whose order is no accident: a switch to them restarts nothing."""
    parameters = {
        "container": {"docker_create_parameters": {"sysctl": ["a=1", "b=2"], "tmpfs": "/x", "memory": "1g"}},
        "environment": {name: f"/opt/{name}" for name in "zyxab"},
        "path": ["/opt/b", "/opt/a"],
    }
    assert generate(**parameters) == generate(**parameters)


@pytest.mark.parametrize(
    ("parameters", "path"),
    [
        ({"process": "/opt/web/bin/web"}, "/opt/web/bin/web"),
        ({"path": ["/opt/tools"]}, "/opt/tools"),
        ({"directory": "/opt/data"}, "/opt/data"),
        ({"args": ["/opt/x"]}, "/opt/x"),
        ({"args": ["/opt/with blank/x"]}, "/opt/with blank/x"),
        ({"args": ["--config=/opt/x.conf"]}, "/opt/x.conf"),
        ({"args": ["-I/opt/include"]}, "/opt/include"),
        ({"args": ["@/opt/x,/opt/y"]}, "/opt/y"),
        ({"args": ["/opt/x/"]}, "/opt/x"),
        ({"args": ["/opt/x/../y"]}, "/opt/y"),
        ({"environment": {"A": "/opt/a/lib:/opt/b/lib"}}, "/opt/b/lib"),
        ({"environment": {"A": "sqlite:////opt/x.db"}}, "/opt/x.db"),
        ({"environment": {"A": "file:///opt/x?mode=ro"}}, "/opt/x"),
        ({"environment": {"A": "unix:/opt/x.sock;ssl"}}, "/opt/x.sock"),
        ({"environment": {"A": '{"a": "/opt/x"}'}}, "/opt/x"),
        ({"environment": {"A": "/opt/ü"}}, "/opt/ü"),
        ({"initialize": "cp /opt/a/x '/opt/b/x' && (/opt/c/run>/dev/null)"}, "/opt/c/run"),
        ({"initialize": "x=$(/opt/a/run `/opt/b/run`)"}, "/opt/b/run"),
    ],
)
def test_named_path_is_needed(generate: Generate, parameters: dict[str, Any], path: str) -> None:
    """A path that a process names, wherever that is and whatever stands around it, has to exist in its container."""
    assert path in paths_of(generate(**parameters))


@pytest.mark.parametrize(
    "text",
    [
        *(
            "/srv/state",
            "/srv/state/lib/x",
            "--data=/srv/state/lib",
            "/srv/profile/web",
            "/srv/state/",
            "//srv/state/x",
        ),
        *("file:///srv/state/lib/x.db", "sqlite:////srv/state/x.db", "/srv/x/../state/x", "/srv//state/x"),
    ],
)
def test_state_is_no_software(generate: Generate, text: str) -> None:
    """What lies in the state is mounted already, and must not be again, read-only; however it is written."""
    unit = generate(args=[text], environment={"A": text}, directory="/srv/state/lib", initialize=f"touch {text}")
    assert paths_of(unit) == paths_of(generate())


def test_neighbour_of_the_state_is_software(generate: Generate) -> None:
    """What is only named like the state is none of it."""
    assert "/srv/statements" in paths_of(generate(args=["/srv/statements"]))


def test_what_our_own_script_needs(target: Target) -> None:
    """Each container has the shell, the interpreter, this package, nice and setpriv."""
    facts = target.facts
    own = [facts.shell, facts.python, facts.package_root, facts.nice, facts.setpriv]
    assert paths_of(generated(target)) == [*own, "/bin/web"]


def test_software_can_be_said(generate: Generate) -> None:
    """With ``software``, a user says what is needed besides our own; nothing is guessed."""
    unit = generate(container={"software": ["/opt/only", Path("/opt/this")]}, args=["/opt/guessed"])
    usual = paths_of(generate())
    assert paths_of(unit) == [*usual[:-1], "/opt/only", "/opt/this"]
    assert paths_of(generate(container={"software": []})) == usual[:-1]


def test_script_forgets_what_the_engine_adds(generate: Generate) -> None:
    """A program sees the environment of the model alone, and its output and error are in their order."""
    lines = file_of(generate(environment={"HOME": "/srv"}), "docker-launch").splitlines()
    assert lines[1:3] == ["unset HOME HOSTNAME", "exec 2>&1"]
    assert lines.index("export HOME=/srv") > 2
