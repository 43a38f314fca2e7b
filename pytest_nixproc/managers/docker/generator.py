"""The generator of docker: files per container in the format of upstream, the Nix process management framework.

``docker create`` could read its arguments from them, too.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote as percent_encoded

from pytest_nixproc.errors import Fault, Unsupported
from pytest_nixproc.managers import kinds, shell
from pytest_nixproc.managers.api import Generator
from pytest_nixproc.managers.docker import arguments
from pytest_nixproc.managers.launch import Launch
from pytest_nixproc.managers.proxy import proxy_argv
from pytest_nixproc.model import value_types
from pytest_nixproc.model.accounts import needed_accounts
from pytest_nixproc.model.names import did_you_mean, snake_case
from pytest_nixproc.model.system import ProcessesModel
from pytest_nixproc.model.value_types import ValueType
from pytest_nixproc.values.machine import GroupEntry, UserEntry
from pytest_nixproc.values.target import Target
from pytest_nixproc.values.units import SCRIPT, File, Unit

LABEL: Final = "org.pytest-nixproc.deployment"
"""Label of everything that a deployment has in an engine; its value is the deployment's identity."""

IMAGE: Final = "docker-image"
NIX_STORE: Final = "/nix/store"
TMPFS: Final = ("/tmp:mode=1777,exec", "/var/tmp:mode=1777,exec", "/run:mode=755")  # noqa: S108 - the container's own

OPEN_FILES: Final = "nofile"
"""Docker's name of the limit of open files."""

ULIMITS: Final = {
    "open_files": OPEN_FILES,
    "processes": "nproc",
    "core_size": "core",
    "stack_size": "stack",
    "locked_memory": "memlock",
}
"""The names of limits that an engine knows; the launch script sets the other one."""

OWN_VARIABLES: Final = ("HOME", "HOSTNAME")
"""Variables that an engine adds by itself."""

PARTS: Final = ("image", "container")
IMAGE_PARAMETERS: Final[Mapping[str, str]] = {
    "archive": "path of an archive with an image: runs as a conventional container",
    "reference": "name of an image that the engine has: runs as a conventional container",
    "files": "texts of more files in the image that we make, by path; the instance has one of its own then",
}
CONTAINER_PARAMETERS: Final[Mapping[str, str]] = {
    "docker_create_parameters": "options of `docker create`; a mapping, or a list of mappings with `name` and `value`",
    "docker_stop_timeout": "seconds until the engine kills what does not stop; default: the instance's stop time-out",
    "use_host_network": "whether to use the host's network unless another is named; default: not in conventional ones",
    "use_host_nix_store": "whether to mount `/nix/store`; default: whether the process names something in it",
    "map_state_dir_volumes": "whether to mount the state directory; default: not in conventional ones",
    "software": "paths of what the container needs of the machine, instead of those that the process names",
    "command": "arguments of a conventional container; default: those of its image",
}


def read_seconds(value: object, path: str, faults: list[Fault]) -> int:
    """Read a number of seconds to wait."""
    seconds = value_types.typed(value, int, "a whole number", path, faults)
    if seconds < 0:
        faults.append(Fault(path, f"is {value!r}, which is less than nothing"))
    return seconds


def is_list(value: object) -> bool:
    """Tell whether a value is a list."""
    return isinstance(value, list | tuple)


KINDS: Final[Mapping[str, ValueType]] = {
    name: kinds.optional(kind)
    for name, kind in {
        "archive": value_types.PATH,
        "reference": value_types.TEXT,
        "files": ValueType("files by path", value_types.read_mapping),
        "docker_stop_timeout": ValueType("number of seconds", read_seconds),
        **dict.fromkeys(("use_host_network", "use_host_nix_store"), kinds.TRUTH),
        # The original has a list here: of the state directory, or of nothing.
        "map_state_dir_volumes": kinds.that("True or False", lambda value: kinds.is_truth(value) or is_list(value)),
        "software": value_types.PATHS,
        "command": value_types.SCALARS,
    }.items()
}
"""The types of those parameters that cannot have just any value."""


class DockerGenerator(Generator):
    """The generator of five files per instance, as upstream has them, and of the container's launch script."""

    def generate(self, launch: Launch) -> Unit:
        """Return the files of one container; one that runs an existing image as it is has no launch script."""
        image = image_parameters(launch)
        if image["files"]:
            image["files"] = accounts(launch.model, launch.target) | image["files"]
        if image["archive"] or image["reference"]:
            # What it runs is its own affair, and stays in the foreground of the container.
            launch = replace(launch, mode="foreground")
        try:
            files = ContainerFiles(launch, image)
            lines = files.create_parameters()
            arguments.keywords(lines)
        except arguments.NoArgument as error:
            raise launch.refusal(error.brief, error.remedy) from error
        priority = File(f"{launch.level + 1:02}-{file_name(launch.name)}-docker-priority", "")
        log = f"docker logs {container_name(launch.target, launch.name)}"
        # What is mounted, by an override, may have another program in the place of the machine's.
        is_machines = not (files.is_conventional or arguments.mounted(files.given))
        program = launch.program if is_machines else ""
        return launch.unit(*files.generate(lines), priority, log_file=log, program=program)

    def generate_shared(self, model: ProcessesModel, target: Target) -> tuple[File, ...]:
        """Return the files of the image that instances share."""
        refuse_directory(target)
        return tuple(File(f"{IMAGE}/{path}", content) for path, content in accounts(model, target).items())


class ContainerFiles:
    """The generated files of one container."""

    def __init__(self, launch: Launch, image: Mapping[str, Any]) -> None:
        self.launch = launch
        self.target = launch.target
        self.image = image
        self.is_conventional = bool(image["archive"] or image["reference"])
        self.parameters = self._parameters()
        self.options = named_options(self.parameters["docker_create_parameters"])
        self.given = arguments.keywords(arguments.arguments(self.options))
        self.name = file_name(launch.name)

    def _parameters(self) -> dict[str, Any]:
        """Return the parameters of the container as the process overrides them."""
        is_ours = not self.is_conventional
        generated = {
            "docker_create_parameters": {},
            "docker_stop_timeout": self.launch.whole_stop_seconds,
            "use_host_network": is_ours,
            "use_host_nix_store": any(path.startswith(f"{NIX_STORE}/") for path in self.named_paths()),
            "map_state_dir_volumes": is_ours,
            "software": None,
            "command": (),
        }
        parameters = overridden("container", self.launch, generated, CONTAINER_PARAMETERS)
        self._refuse_vain(parameters)
        return parameters

    def _refuse_vain(self, parameters: Mapping[str, Any]) -> None:
        """Raise for overrides that would have no effect on a container of this kind."""
        if self.is_conventional and parameters["software"] is not None:
            what = "its override container.software is of no use: a conventional container has its own"
            raise self.launch.refusal(what, "use docker_create_parameters to mount more")
        if not self.is_conventional and parameters["command"]:
            what = "its override container.command is of no use: the container runs what the process describes"
            raise self.launch.refusal(what, "set args, or an image's archive or reference")

    def named_paths(self) -> list[str]:
        """Return the paths that the process names anywhere; those that exist have to exist in the container."""
        if self.is_conventional:
            return []
        mounted = (f"{self.target.state.state_dir}/", f"{self.target.directory}/")
        return [
            path for path in self.launch.process.named_paths(self.launch.command) if not f"{path}/".startswith(mounted)
        ]

    def create_parameters(self) -> list[str]:
        """Return the arguments of ``docker create``: the user's first, then ours where the user has none."""
        given = {name for name, _ in self.options}
        own = [item for item in self.own_options() if arguments.OPTIONS[item[0]].repeats or item[0] not in given]
        return arguments.arguments([*self.options, *own])

    def own_options(self) -> Iterator[tuple[str, object]]:
        """Yield the options that we add."""
        target, parameters = self.target, self.parameters
        root = posixpath.dirname(target.directory)
        yield "label", [label_of(target), f"{LABEL}.instance={self.launch.key}", f"{LABEL}.root={root}"]
        if self.launch.stop_signal != "TERM":
            yield "stop-signal", f"SIG{self.launch.stop_signal}"
        if parameters["use_host_nix_store"]:
            yield "volume", f"{NIX_STORE}:{NIX_STORE}:ro"
        if parameters["use_host_network"]:
            yield "network", "host"
        if parameters["map_state_dir_volumes"]:
            yield "volume", f"{target.state.state_dir}:{target.state.state_dir}:z"
        if not self.is_conventional:
            yield "volume", f"{target.directory}:{target.directory}:ro,z"
            yield "user", f"{target.facts.account.uid}:{target.facts.account.gid}"
            yield "read-only", None
            taken = arguments.mounted(self.given)
            yield "tmpfs", [entry for entry in TMPFS if entry.partition(":")[0] not in taken]
            yield "env", [f"{name}={value}" for name, value in target.tags.items()]
            yield "ulimit", list(self.limits())
            if target.facts.shared_memory:
                yield "shm-size", target.facts.shared_memory
            if min(self.launch.nice or 0, self.launch.niceness or 0) < 0:
                yield "cap-add", "SYS_NICE"

    def limits(self) -> Iterator[str]:
        """Yield the limits of the process that the engine can set, but for those that the user has given it."""
        taken = {limit.name for limit in self.given.get("ulimits", ())}
        facts, limits = self.target.facts, self.launch.limits
        own = {OPEN_FILES: f"{facts.open_files}:{facts.most_open_files}"}
        own |= {ULIMITS[name]: str(-1 if limits[name] is None else limits[name]) for name in limits if name in ULIMITS}
        yield from (f"{name}={value}" for name, value in own.items() if name not in taken)

    def generate(self, lines: Iterable[str]) -> Iterator[File]:
        """Yield the files."""
        image = self.image["archive"] or (
            "" if self.image["reference"] else f"{self.target.directory}/{self.image_directory}"
        )
        digest = sha256(image.encode(errors="surrogateescape")).hexdigest()[:8]
        ports = set(self.launch.model[self.launch.key].declared_ports.values())
        settings = {
            "dockerImage": image,
            "dockerImageTag": self.image["reference"] or f"{image_prefix(self.target)}{digest}:latest",
            "dockerStopTimeout": str(self.parameters["docker_stop_timeout"]),
            "dockerPorts": " ".join(map(str, sorted(ports))),
            "dockerConventional": "1" if self.is_conventional else "",
        }
        texts = "".join(f"{name}={shell.quote(value)}\n" for name, value in settings.items())
        yield File(f"{self.name}-docker-settings", texts)
        yield File(f"{self.name}-docker-createparams", "".join(f"{line}\n" for line in lines))
        yield File(f"{self.name}-docker-cmd", shell.words(self.argv()) + "\n")
        yield File(f"{self.name}-storepaths", "".join(f"{shell.quote(path)}\n" for path in self.store_paths()))
        if not self.is_conventional:
            yield self.open_to_chosen(File(f"{self.name}-docker-launch", self.launch_script(), SCRIPT))
        for path, content in self.image["files"].items():
            yield File(f"{self.image_directory}/{path.lstrip('/')}", content)

    def open_to_chosen(self, script: File) -> File:
        """Return a script that a user of the container can read, if an override has chosen one."""
        if "user" not in self.given:
            return script
        user, _, group = str(self.given["user"]).partition(":")
        # Without an entry in its users, an engine gives a number the group of root.
        return shell.open_to_account(script, user, group or shell.primary_group(user, self.target) or "0", self.target)

    @property
    def image_directory(self) -> str:
        """The directory of the files of the instance's image; most instances share one."""
        return f"{self.name}-{IMAGE}" if self.image["files"] else IMAGE

    def argv(self) -> Sequence[str]:
        """Return the command line of the container; empty for that of its image."""
        if self.is_conventional:
            command: Sequence[str] = self.parameters["command"]
            return command
        script = f"{self.target.directory}/{self.name}-docker-launch"
        facts = self.target.facts
        if self.launch.mode == "foreground" and self.given.get("init"):
            # The engine's own init does what ours would.
            return [script]
        return [*(self.launch.proxy or proxy_argv(facts.python, facts.package_root)), script]

    def store_paths(self) -> Sequence[str]:
        """Return the paths of the machine's software that the container needs."""
        if self.is_conventional:
            return []
        facts = self.target.facts
        own = (facts.shell, facts.python, facts.package_root, facts.nice, facts.setpriv)
        software = self.parameters["software"]
        return [*filter(None, own), *(self.named_paths() if software is None else software)]

    def launch_script(self) -> str:
        """Return the script that execs the program; output and error go to one log, in their order."""
        forget = f"unset {' '.join(OWN_VARIABLES)}"
        rest = {name: limit for name, limit in self.launch.limits.items() if name not in ULIMITS}
        launch = replace(self.launch, limits=rest)
        return shell.launch_script(launch, forget, "exec 2>&1", is_ours=False, is_proxied=False)


def overridden(part: str, launch: Launch, generated: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the parameters of an image or a container with a process's overrides; others keep their values."""
    changed = launch.overridden(generated, part=part, spelling=snake_case, known=known, kinds=KINDS)
    return generated | {name: value for name, value in changed.items() if value is not None}


def image_parameters(launch: Launch) -> dict[str, Any]:
    """Return the parameters of a process's image."""
    refuse_other_overrides(launch)
    image = overridden("image", launch, {"archive": None, "reference": None, "files": {}}, IMAGE_PARAMETERS)
    if image["archive"] and image["reference"]:
        raise launch.refusal("its image has both an archive and a reference", "name one of them")
    return image


def refuse_other_overrides(launch: Launch) -> None:
    """Raise for overrides that are of neither an image nor a container."""
    override = launch.process.overrides.get("docker", {})
    parts = {} if callable(override) else override
    are_changes = all(isinstance(change, Mapping) or callable(change) for change in parts.values())
    if callable(override) or not (are_changes and parts.keys() <= set(PARTS)):
        unknown = [str(name) for name in parts if name not in PARTS]
        what = (
            f"its overrides are of neither image nor container{': ' if unknown else ''}{', '.join(map(repr, unknown))}"
        )
        meant = did_you_mean(unknown[0], PARTS) if unknown else ""
        raise launch.refusal(what, meant or 'give {"docker": {"image": ..., "container": ...}}')


def named_options(given: Mapping[str, object] | Sequence[Mapping[str, object]]) -> list[tuple[str, object]]:
    """Return options by their full names; given as a mapping, or as a list of ``name`` and maybe ``value``."""
    try:
        pairs = given.items() if isinstance(given, Mapping) else [(item["name"], item.get("value")) for item in given]
    except (AttributeError, KeyError, TypeError) as error:
        raise arguments.NoArgument(f"docker_create_parameters has {given!r}, not a list of name and value") from error
    return [(arguments.full_name(str(name)), value) for name, value in pairs]


def accounts(model: ProcessesModel, target: Target) -> dict[str, str]:
    """Return an image's files of accounts: the machine's own, the caller's, and whom processes switch to (passwd(5)).

    Servers that drop root by themselves look names up; there are no passwords among what they find.
    """
    users = {entry.name: entry for entry in usual_users(target)}
    groups = {entry.name: entry for entry in usual_groups(target)}
    if not target.force_disable_user_change:
        described, known = needed_accounts(model), target.accounts
        numbers = {name: group.gid for name, group in described.groups.items() if group.gid is not None}
        for name, gid in (numbers | dict(known.groups)).items():
            groups[name] = replace(groups.get(name, GroupEntry(name, gid)), gid=gid)
        ids = {
            name: (user.uid, groups[user.group].gid if user.group in groups else user.uid)
            for name, user in described.users.items()
            if user.uid is not None
        }
        ids |= {name: (account.uid, account.gid) for name, account in known.users.items()}
        for name, (uid, gid) in ids.items():
            entry = users.get(name, UserEntry(name, uid, gid, shell=target.facts.shell))
            users[name] = replace(entry, uid=uid, gid=gid)
        members = {name: user.extra_groups for name, user in described.users.items()} | dict(known.members)
        groups = {name: with_members(group, members) for name, group in groups.items()}
    return {
        "etc/passwd": "".join(map(line_of_user, users.values())),
        "etc/group": "".join(f"{group.name}:x:{group.gid}:{','.join(group.members)}\n" for group in groups.values()),
    }


def line_of_user(user: UserEntry) -> str:
    """Return a user as a line of passwd(5)."""
    return f"{user.name}:x:{user.uid}:{user.gid}:{user.name}:{user.home}:{user.shell}\n"


def usual_users(target: Target) -> Sequence[UserEntry]:
    """Return the users that every container has: the machine's, and root, the caller and nobody in any case."""
    own, shell_path = target.facts.account, target.facts.shell
    needed = (("root", 0, 0), (own.user, own.uid, own.gid), ("nobody", 65534, 65534))
    return *(UserEntry(*entry, shell=shell_path) for entry in needed), *target.facts.users


def usual_groups(target: Target) -> Sequence[GroupEntry]:
    """Return the groups that every container has: the machine's, and those of root, the caller and nobody."""
    own = target.facts.account
    needed = (("root", 0), (own.group, own.gid), ("nogroup", 65534))
    return *(GroupEntry(*entry) for entry in needed), *target.facts.groups


def with_members(group: GroupEntry, members: Mapping[str, Iterable[str]]) -> GroupEntry:
    """Return a group with the users of whom it is one of the groups."""
    added = (user for user, others in members.items() if group.name in others)
    return replace(group, members=tuple(dict.fromkeys((*group.members, *added))))


def file_name(name: str) -> str:
    """Return a name percent-encoded, so that a file can have it."""
    return percent_encoded(name, safe=" ", errors="surrogateescape")


def container_name(target: Target, name: str) -> str:
    """Return a container's name: an engine allows few characters, so others are left out and told apart by a digest.

    What looks like it has a digest gets one too: it could be the name of another.
    """
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name)
    is_plain = plain == name and not re.search("-[0-9a-f]{8}$", name)
    digest = "" if is_plain else f"-{sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return f"nixproc-{target.identity}-{plain}{digest}"


def label_of(target: Target) -> str:
    """Return the label of everything that a deployment has in an engine, with its value."""
    return f"{LABEL}={target.identity}"


def image_prefix(target: Target) -> str:
    """Return the prefix of the names of a deployment's images."""
    return f"nixproc-{target.identity}-"


def refuse_directory(target: Target) -> None:
    """Raise where the place of a deployment cannot be mounted: in a volume, a colon separates."""
    for path in (target.directory, target.state.state_dir):
        if re.search(r"[:\n]", path) or not path.isprintable():
            remedy = "choose a --nixproc-state-root without colons and control characters"
            raise Unsupported("docker", "the system", f"{path!r} cannot be mounted as a volume", remedy=remedy)
