"""The scenarios of chaos, as data: what is in the way of a session, or what hits it, and when."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from threading import Timer
from typing import Final

from tests.crash.chaos_damage import DAMAGES, Damage
from tests.crash.chaos_scene import USER, Scene, command

PHASES: Final = ("deployment", "test", "teardown")
THAW_SECONDS: Final = 3.0
FREE_BYTES: Final = 1 << 26
FOR_USERS: Final = ("supervisord", "sysvinit", "disnix")
"""Managers for which an ordinary user needs nothing that is root's to give."""

DAY: Final = 86_400


@dataclass(frozen=True)
class Scenario:
    """One kind of trouble for a session."""

    name: str
    kind: str
    prepare: Callable[[Scene], object] = lambda _: None
    """What is done before the session starts: to its place, its options, its environment, what it is executed by."""

    hits: tuple[tuple[str, str, Callable[[Scene], bool]], ...] = ()
    """In which phase, of which process, something is done to the session while that process is frozen."""

    silent: bool = False
    """Whether nobody is left who could say anything."""

    said_by_others: str = ""
    """What pytest or one of its plugins says of it; that is enough, where nothing of a deployment is to be mended."""

    reaped: bool = False
    """Whether ``nixproc reap`` may be needed: because the guardian has been hit, or what it reads."""

    damage: Damage | None = None
    """What is done to the records of a session that has been killed, in place of hits."""

    managers: tuple[str, ...] = ()
    """The only managers that it is for; all if it names none."""

    unavailable: Callable[[], str] = lambda: ""
    """Why it cannot be tried on this machine, or "" if it can."""


Hits = tuple[tuple[str, str, Callable[[Scene], bool]], ...]


def hits(
    phase: str, *actions: Callable[[Scene], bool], victim: str = "pytest"
) -> tuple[tuple[str, str, Callable[[Scene], bool]], ...]:
    """Return the hit that does all of some actions, one after the other."""
    return ((phase, victim, lambda scene: min(action(scene) for action in actions)),)


# Resource limits

REASONS: Final = {
    "fsize": ("File too large",),
    "nofile": ("Too many open files", "file descriptors"),
    "nproc": ("Resource temporarily unavailable", "available processes"),
}
"""What is said of a limit, by the system or by a manager."""

LIMITS: Final = {
    "fsize": ("100", "1000", "3000", "20000"),
    "nofile": ("16", "24", "40", "100"),
    "as": ("100000000", "200000000", "400000000"),
    "stack": ("262144",),
    "core": ("0:0", "unlimited"),
    "memlock": ("0",),
    "data": ("150000000",),
    "msgqueue": ("0",),
    "locks": ("0",),
    "sigpending": ("0",),
    "rttime": ("100000",),
}
"""Limits with which pytest itself can still run (prlimit(1))."""


def limited(limit: str, value: str, scene: Scene) -> None:
    """Execute the session with a limit."""
    scene.wrapper += [shutil.which("prlimit") or "prlimit", f"--{limit}={value}"]
    scene.names |= {*REASONS.get(limit, ("memory",)), scene.session.state_root}


def limited_user(limit: str, value: str, scene: Scene) -> None:
    """Have an ordinary user run the session with a limit."""
    as_user(scene)
    limited(limit, value, scene)


def lower_limit(limit: str, value: str, scene: Scene) -> bool:
    """Lower a limit of the running session."""
    command("prlimit", f"--pid={scene.session.pid}", f"--{limit}={value}:")
    scene.names |= {*REASONS[limit], scene.session.state_root}
    return True


def as_user(scene: Scene) -> None:
    """Have an ordinary user run the session, who owns its place."""
    entry = f"chaos:x:{USER}:{USER}::/tmp/home:/bin/sh\n"
    Path("/tmp/passwd").write_text(Path("/etc/passwd").read_text() + entry)
    command("mount", "--bind", "/tmp/passwd", "/etc/passwd")
    command("chown", "-R", f"{USER}:{USER}", scene.place, "/tmp/home", "/tmp/kl")
    ids = (f"--reuid={USER}", f"--regid={USER}", "--clear-groups")
    scene.wrapper += [shutil.which("setpriv") or "setpriv", *ids]


def resource_limits() -> Iterator[Scenario]:
    """Yield the scenarios of resource limits."""
    for limit, values in LIMITS.items():
        for value in values:
            yield Scenario(f"{limit}={value}", "limits", partial(limited, limit, value))
    for value in ("2", "4", "8", "16"):
        limiting = partial(limited_user, "nproc", value)
        yield Scenario(f"nproc={value}, ordinary user", "limits", limiting, managers=FOR_USERS)
    for phase in ("test", "teardown"):
        # The file that tells the phase is shorter than that.
        for limit, value in (("fsize", "300"), ("nofile", "8")):
            yield Scenario(
                f"{limit}={value} in {phase}", "limits", hits=hits(phase, partial(lower_limit, limit, value))
            )


# File systems


def on_file_system(scene: Scene, options: str = "size=64m") -> str:
    """Have the state root on a file system of its own; return where that is."""
    place = scene.mount(f"{scene.place}/fs", f"mode=700,{options}")
    scene.session.state_root = f"{place}/s"
    scene.names |= {"No space left on device", "Read-only file system", place}
    return place


def fill(scene: Scene) -> bool:
    """Leave no byte free on the file system of the state root."""
    path = f"{scene.place}/fs/filler"
    with suppress(OSError), open(path, "wb", buffering=0) as file:
        while file.write(b"\0" * 65536):
            continue
    scene.undo.append(partial(os.unlink, path))
    return True


def fill_inodes(scene: Scene) -> bool:
    """Leave no inode free on the file system of the state root."""
    directory = f"{scene.place}/fs/many"
    os.mkdir(directory)
    with suppress(OSError):
        for number in range(100_000):
            os.mknod(f"{directory}/{number}")
    scene.undo.append(partial(shutil.rmtree, directory))
    return True


def remount(option: str, scene: Scene) -> bool:
    """Mount the file system of the state root anew, with another option."""
    try:
        command("mount", "-o", f"remount,{option}", f"{scene.place}/fs")
    except subprocess.CalledProcessError:
        # Somebody is writing a file there.
        return False
    scene.undo.append(partial(command, "mount", "-o", "remount,rw,exec", f"{scene.place}/fs"))
    return True


def full_at_the_start(scene: Scene) -> None:
    """Have no byte free before anything begins."""
    on_file_system(scene)
    fill(scene)


def mounted_as(option: str, scene: Scene) -> None:
    """Have the state root on a file system that is mounted with an option."""
    on_file_system(scene)
    remount(option, scene)


def file_as_root(scene: Scene) -> None:
    """Have a file where the state root should be."""
    scene.session.state_root = "/tmp/home/root"
    Path(scene.session.state_root).touch()
    scene.names.add(scene.session.state_root)


def link_as_root(target: str, scene: Scene) -> None:
    """Have a link where the state root should be."""
    scene.names.add(scene.session.state_root)
    os.symlink(target, scene.session.state_root)


def foreign_root(scene: Scene) -> None:
    """Have the state root below a directory of somebody else's."""
    os.mkdir("/tmp/home/other")
    os.chown("/tmp/home/other", USER, USER)
    scene.session.state_root = "/tmp/home/other/s"
    scene.names.add("/tmp/home/other")


def leases_mounted(options: str, scene: Scene) -> None:
    """Have the leases on a file system of their own."""
    scene.mount("/tmp/kl", options)
    scene.names.add("/tmp/kl")


def file_systems() -> Iterator[Scenario]:
    """Yield the scenarios of file systems."""
    for size in ("4k", "12k", "32k", "100k"):
        yield Scenario(f"state root of {size}", "file system", partial(on_file_system, options=f"size={size}"))
    for inodes in ("2", "3", "8", "14", "20", "30"):
        yield Scenario(
            f"state root of {inodes} inodes", "file system", partial(on_file_system, options=f"nr_inodes={inodes}")
        )
    yield Scenario("full state root in start", "file system", full_at_the_start)
    for phase in PHASES:
        yield Scenario(f"full state root in {phase}", "file system", on_file_system, hits(phase, fill))
        less = partial(on_file_system, options="nr_inodes=2000")
        yield Scenario(f"no inode in {phase}", "file system", less, hits(phase, fill_inodes))
    # Later, there is always a file that is open for writing.
    read_only = hits("deployment", partial(remount, "ro"))
    yield Scenario("read-only state root in deployment", "file system", on_file_system, read_only)
    yield Scenario("noexec in test", "file system", on_file_system, hits("test", partial(remount, "noexec")))
    yield Scenario("noexec", "file system", partial(mounted_as, "noexec"))
    yield Scenario("read-only state root", "file system", partial(mounted_as, "ro"))
    yield Scenario("nodev,nosuid", "file system", partial(mounted_as, "nodev,nosuid"))
    yield Scenario("a file as state root", "file system", file_as_root)
    yield Scenario("a link as state root", "file system", partial(link_as_root, "/tmp/home"))
    yield Scenario("a dangling link as state root", "file system", partial(link_as_root, "/tmp/home/nowhere"))
    yield Scenario("a link to itself as state root", "file system", partial(link_as_root, "s"))
    yield Scenario("state root of another user", "file system", foreign_root)
    yield Scenario("leases without an inode", "file system", partial(leases_mounted, "nr_inodes=2,mode=700"))
    yield Scenario("leases without space", "file system", partial(leases_mounted, "size=4k,mode=700"))
    yield Scenario("read-only leases", "file system", partial(leases_mounted, "ro,mode=700"))
    yield Scenario("leases that others write", "file system", partial(leases_mounted, "mode=777"))


# Environments


def with_umask(mask: str, scene: Scene, *, user: bool = False) -> None:
    """Run the session with a umask."""
    if user:
        as_user(scene)
    scene.wrapper += ["/bin/sh", "-c", f'umask {mask}; exec "$@"', "sh"]
    scene.names |= {scene.place, "umask"}


def with_tmpdir(directory: str, scene: Scene, *, mode: int = 0o700, owner: int = 0) -> None:
    """Give a temporary directory, in which is the state root too; with no mode it is not made."""
    if mode:
        os.makedirs(directory, mode=mode)
        os.chmod(directory, mode)
        os.chown(directory, owner, owner)
    use_tmpdir(directory, scene)


def use_tmpdir(directory: str, scene: Scene) -> None:
    """Give a temporary directory as it is."""
    scene.variables["TMPDIR"] = directory
    scene.session.names_state_root = False
    scene.session.state_root = f"{directory}/nixproc-{os.getuid()}"
    scene.names |= {directory, os.path.realpath(directory), repr(directory)[1:-1]}


def linked_tmpdir(scene: Scene) -> None:
    """Give a temporary directory that is behind a link."""
    os.mkdir("/tmp/home/real", mode=0o700)
    os.symlink("/tmp/home/real", "/tmp/home/link")
    use_tmpdir("/tmp/home/link", scene)


def relative_tmpdir(scene: Scene) -> None:
    """Give a temporary directory by a relative path."""
    os.mkdir(f"{scene.place}/project/here", mode=0o700)
    use_tmpdir("here", scene)
    scene.session.state_root = f"{scene.place}/project/here/nixproc-0"


def full_tmpdir(scene: Scene) -> None:
    """Give a temporary directory in which nothing can be written."""
    scene.mount("/tmp/home/full", "nr_inodes=1,mode=700")
    scene.names.add("No space left on device")
    use_tmpdir("/tmp/home/full", scene)


def file_as_tmpdir(scene: Scene) -> None:
    """Give a file as temporary directory."""
    Path("/tmp/home/file").touch()
    use_tmpdir("/tmp/home/file", scene)


def with_home(path: str, scene: Scene) -> None:
    """Give a home directory."""
    scene.variables["HOME"] = path
    scene.names.add(path)


def without(*names: str, scene: Scene) -> None:
    """Take variables out of the environment."""
    scene.variables = {name: value for name, value in scene.variables.items() if name not in names}
    scene.wrapper += [shutil.which("env") or "env", *(word for name in names for word in ("-u", name))]
    scene.names |= set(names)


def with_variables(scene: Scene, **values: str) -> None:
    """Add variables to the environment."""
    scene.variables |= values
    scene.names |= set(values)


def with_closed(redirections: str, scene: Scene) -> None:
    """Run the session with closed descriptors."""
    scene.wrapper += ["/bin/sh", "-c", f'exec "$@" {redirections}', "sh"]


def unwritable_home(scene: Scene) -> None:
    """Let an ordinary user have a home directory of root's."""
    as_user(scene)
    with_home("/usr", scene)


def unknown_user(scene: Scene) -> None:
    """Have a user run the session whom the machine does not know."""
    as_user(scene)
    command("umount", "/etc/passwd")
    scene.names.add(str(USER))


def environments() -> Iterator[Scenario]:
    """Yield the scenarios of environments."""
    home = "/tmp/home"
    kinds: dict[str, Callable[[Scene], object]] = {
        **{f"umask {mask}": partial(with_umask, mask) for mask in ("0777", "0222", "0000", "0077")},
        **{f"umask {mask}, ordinary user": partial(with_umask, mask, user=True) for mask in ("0777", "0222", "0333")},
        "TMPDIR that is not there": partial(with_tmpdir, f"{home}/nowhere", mode=0),
        "TMPDIR with blanks": partial(with_tmpdir, f"{home}/with two  blanks"),
        "TMPDIR that is not ASCII": partial(with_tmpdir, f"{home}/größe-日本"),
        "TMPDIR with quotes": partial(with_tmpdir, f"{home}/a\"b'c$d`e%(f)s"),
        "TMPDIR with a newline": partial(with_tmpdir, f"{home}/a\nb"),
        "TMPDIR of another user": partial(with_tmpdir, f"{home}/other", owner=USER),
        "TMPDIR that others write": partial(with_tmpdir, f"{home}/all", mode=0o777),
        "TMPDIR with sticky bit": partial(with_tmpdir, f"{home}/sticky", mode=0o1777),
        "TMPDIR too long for sockets": partial(with_tmpdir, f"{home}/{'long' * 30}"),
        "TMPDIR behind a link": linked_tmpdir,
        "TMPDIR that is relative": relative_tmpdir,
        "TMPDIR without an inode": full_tmpdir,
        "TMPDIR that is a file": file_as_tmpdir,
        "HOME that is not there": partial(with_home, "/nowhere/at/all"),
        "HOME in /proc": partial(with_home, "/proc"),
        "HOME that is empty": partial(with_home, ""),
        "HOME of root's, ordinary user": unwritable_home,
        "no HOME": partial(no_variable, "HOME"),
        "no PATH": partial(no_variable, "PATH"),
        "PATH that is empty": lambda scene: with_variables(scene, PATH=""),
        "PATH with nothing in it": lambda scene: with_variables(scene, PATH="/nowhere:.:"),
        "unknown locale": lambda scene: with_variables(scene, LC_ALL="xx_YY.utf-9", LANG="xx"),
        "ASCII": lambda scene: with_variables(scene, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"),
        "PYTHONOPTIMIZE": lambda scene: with_variables(scene, PYTHONOPTIMIZE="2"),
        "SHELL that fails": lambda scene: with_variables(
            scene, SHELL="/bin/false", BASH_ENV="/nowhere", ENV="/nowhere"
        ),
        "no standard input": partial(with_closed, "<&-"),
        "no standard error": partial(with_closed, "2>&-"),
        "a user that is not known": unknown_user,
        "ordinary user": as_user,
    }
    for name, prepare in kinds.items():
        yield Scenario(name, "environment", prepare, managers=FOR_USERS if "user" in name else ())


def no_variable(name: str, scene: Scene) -> None:
    """Take one variable out of the environment."""
    without(name, scene=scene)


# Clocks


CLOCK: Final = """\
/* Moves the time of day by the seconds in a file; clocks that only run on are the system's. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long *seconds;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *found = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *seconds, PROT_READ, MAP_SHARED, file, 0);
    if (found != MAP_FAILED) seconds = found;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && seconds && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *seconds;
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec exact;
    if (clock_gettime(CLOCK_REALTIME, &exact)) return -1;
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"""
CLOCK_FILE: Final = "/tmp/home/clock"


def no_compiler() -> str:
    """Say why clocks cannot be set."""
    return "" if shutil.which("cc") else "there is no C compiler"


def with_clock(scene: Scene, offset: int = 0) -> None:
    """Let the session's processes have another time of day than the machine, by some seconds."""
    set_clock(offset, scene)
    Path(f"{CLOCK_FILE}.c").write_text(CLOCK)
    command("cc", "-shared", "-fPIC", "-O2", "-o", f"{CLOCK_FILE}.so", f"{CLOCK_FILE}.c")
    scene.variables |= {"LD_PRELOAD": f"{CLOCK_FILE}.so", "CHAOS_CLOCK": CLOCK_FILE}
    scene.names |= {"clock", scene.session.state_root}


def set_clock(offset: int, _: Scene) -> bool:
    """Set the clock of the session's processes, which have the file mapped: it is not made anew."""
    with open(os.open(CLOCK_FILE, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
        file.write(offset.to_bytes(8, sys.byteorder, signed=True))
    return True


def clocks() -> Iterator[Scenario]:
    """Yield the scenarios of clocks."""
    for name, offset in (("back", -400 * DAY), ("forward", 4000 * DAY), ("past 2038", 20 * 365 * DAY)):
        prepare = partial(with_clock, offset=offset)
        yield Scenario(f"clock {name}", "clock", prepare, unavailable=no_compiler)
    for phase in PHASES:
        for name, offset in (("back", -2 * DAY), ("forward", 2 * DAY)):
            setting = hits(phase, partial(set_clock, offset))
            yield Scenario(f"clock set {name} in {phase}", "clock", with_clock, setting, unavailable=no_compiler)


# Records


def cut(pattern: str, scene: Scene) -> bool:
    """Cut a file of the running session off at a random byte."""
    (path,) = glob(pattern.format(root=scene.root(), name=os.path.basename(scene.root()), leases=scene.leases))
    os.truncate(path, scene.chance.randrange(os.path.getsize(path)))
    scene.names |= {path, scene.root()}
    return True


def scramble(pattern: str, scene: Scene) -> bool:
    """Fill a file of the running session with noise."""
    (path,) = glob(pattern.format(root=scene.root(), name=os.path.basename(scene.root()), leases=scene.leases))
    Path(path).write_bytes(scene.chance.randbytes(os.path.getsize(path)))
    scene.names |= {path, scene.root()}
    return True


def remove(pattern: str, scene: Scene) -> bool:
    """Remove a file, or a directory, of the running session."""
    path = pattern.format(root=scene.root(), name=os.path.basename(scene.root()), leases=scene.leases)
    scene.names |= {path, scene.root()}
    shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    return True


RECORDS: Final = {
    "journal": "{root}/journal",
    "lease": "{leases}/{name}.json",
    "leases of ports": "{leases}/ports.json",
}


def records() -> Iterator[Scenario]:
    """Yield the scenarios of damaged records."""
    for damage in DAMAGES:
        yield Scenario(damage.name, "records", silent=True, reaped=True, damage=damage)
    for name, pattern in RECORDS.items():
        for verb, action in (("cut off", cut), ("scrambled", scramble), ("removed", remove)):
            yield Scenario(
                f"{name} {verb} in test", "records", hits=hits("test", partial(action, pattern)), reaped=True
            )
    for name, pattern in (("leases", "{leases}"), ("deployment", "{root}"), ("generated files", "{root}/profile")):
        yield Scenario(f"{name} removed in test", "records", hits=hits("test", partial(remove, pattern)), reaped=True)


# Things in the state


def put(make: Callable[[str, Scene], object], scene: Scene) -> bool:
    """Make something in the state of the running session."""
    place = f"{scene.root()}/var/lib/data"
    os.mkdir(place)
    make(place, scene)
    scene.names |= {place, scene.root()}
    if scene.wrapper:
        with suppress(subprocess.CalledProcessError):
            command("chown", "-hR", f"{USER}:{USER}", place)
    return True


def a_mount(place: str, scene: Scene) -> None:
    """Mount a file system with a file in it."""
    command("mount", "-t", "tmpfs", "tmpfs", place)
    Path(place, "precious").touch()
    scene.undo += [partial(still_there, f"{place}/precious"), partial(command, "umount", "-l", place)]


def a_bind(place: str, scene: Scene) -> None:
    """Bind a directory with a file that is somebody else's."""
    make_precious()
    command("mount", "--bind", "/tmp/home/precious", place)
    scene.undo += [partial(command, "umount", "-l", place), partial(still_there, PRECIOUS)]


def a_bound_file(place: str, scene: Scene) -> None:
    """Bind a file onto a file of the state."""
    make_precious()
    Path(place, "file").touch()
    command("mount", "--bind", PRECIOUS, f"{place}/file")
    scene.undo += [partial(command, "umount", "-l", f"{place}/file"), partial(still_there, PRECIOUS)]


PRECIOUS: Final = "/tmp/home/precious/file"


def make_precious() -> None:
    """Make a file that has to outlive everything."""
    os.makedirs(os.path.dirname(PRECIOUS), exist_ok=True)
    Path(PRECIOUS).write_text("precious")


def still_there(path: str) -> None:
    """Raise unless a file is still there."""
    assert os.path.exists(path), f"{path} is lost"


def a_link(place: str, scene: Scene) -> None:
    """Link to a directory that is somebody else's, and link to what is above."""
    make_precious()
    os.symlink(os.path.dirname(PRECIOUS), f"{place}/link")
    os.symlink(place, f"{place}/loop")
    os.link(PRECIOUS, f"{place}/hard")
    scene.undo.append(partial(still_there, PRECIOUS))


def an_attribute(letter: str, place: str, scene: Scene) -> None:
    """Give a file an attribute that keeps even root from removing it."""
    file = f"{place}/kept"
    Path(file).touch()
    command("chattr", f"+{letter}", file)
    scene.undo.append(partial(command, "chattr", f"-{letter}", file))


def attribute_of_directory(letter: str, place: str, scene: Scene) -> None:
    """Give a directory, with a file in it, an attribute that keeps even root from removing it."""
    Path(place, "kept").touch()
    command("chattr", f"+{letter}", place)
    scene.undo.append(partial(command, "chattr", f"-{letter}", place))


def on_disk(scene: Scene) -> None:
    """Have the state root on the machine's disk: a file system in memory has no attributes."""
    place = f"/var/lib/nixproc-chaos-{os.urandom(4).hex()}"
    os.mkdir(place, mode=0o700)
    scene.session.state_root = f"{place}/s"
    scene.at_end.append(partial(remove_with_attributes, place))


def remove_with_attributes(place: str) -> None:
    """Remove a directory of ours on the machine's disk."""
    command("chattr", "-R", "-f", "-i", "-a", place) if os.path.exists(place) else None
    shutil.rmtree(place, ignore_errors=True)


def with_modes(mode: int, place: str, _: Scene) -> None:
    """Make directories and files with a mode."""
    os.makedirs(f"{place}/a/b")
    for directory in (f"{place}/a/b", f"{place}/a", place):
        Path(directory, "file").touch()
    for directory in (f"{place}/a/b", f"{place}/a", place):
        os.chmod(f"{directory}/file", mode & 0o666)
        os.chmod(directory, mode)


def a_deep_tree(depth: int, place: str, __: Scene) -> None:
    """Make directories in directories, deeper than a path may be long."""
    here = os.open(place, os.O_DIRECTORY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        there = os.open("deeper", os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)


def special_files(place: str, _: Scene) -> None:
    """Make what is no file: a FIFO, a socket, device nodes."""
    os.mkfifo(f"{place}/fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{place}/socket")
    os.mknod(f"{place}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(f"{place}/block", stat.S_IFBLK | 0o600, os.makedev(7, 200))


def odd_names(place: str, _: Scene) -> None:
    """Make files whose names are no text, or hardly any."""
    for name in (b"\xff\xfe", b"a\nb", b" ", b"-rf", b"*", b"\x1b[31m", b"n" * 255):
        os.mknod(place.encode() + b"/" + name)


def many_files(place: str, _: Scene) -> None:
    """Make more files than anybody has."""
    for number in range(20_000):
        os.mknod(f"{place}/{number}")


def things() -> Iterator[Scenario]:
    """Yield the scenarios of things in the state."""
    made: dict[str, Callable[[str, Scene], object]] = {
        "a mount": a_mount,
        "a bound directory": a_bind,
        "a bound file": a_bound_file,
        "links": a_link,
        "FIFO, socket, devices": special_files,
        "odd names": odd_names,
        "20,000 files": many_files,
        "a tree 1,500 deep": partial(a_deep_tree, 1500),
        "modes 0000": partial(with_modes, 0),
        "modes 0555": partial(with_modes, 0o555),
    }
    for name, make in made.items():
        yield Scenario(f"{name} in the state", "state", hits=hits("test", partial(put, make)))
    for letter, name in (("i", "immutable"), ("a", "append-only")):
        for what, mark in (("file", an_attribute), ("directory", attribute_of_directory)):
            yield Scenario(
                f"{name} {what} in the state", "state", on_disk, hits("test", partial(put, partial(mark, letter)))
            )
    for name, mode in (("0000", 0), ("0555", 0o555), ("0444", 0o444), ("0111", 0o111)):
        making = hits("test", partial(put, partial(with_modes, mode)))
        yield Scenario(f"modes {name} in the state, ordinary user", "state", as_user, making, managers=FOR_USERS)


# Victims


def kill(victim: str, scene: Scene) -> bool:
    """Kill a process; tell whether there was one."""
    pids = scene.pids(victim)
    for pid in pids:
        scene.asleep.add(pid)
        scene.names.add(str(pid))
        os.kill(pid, signal.SIGKILL)
    return bool(pids)


def freeze(victim: str, scene: Scene) -> bool:
    """Freeze a process; the guardian, manager and their like for ever, who runs tests for some seconds."""
    pids = scene.pids(victim)
    for pid in pids:
        scene.stop(pid)
        scene.asleep.add(pid)
        scene.names |= {str(pid), scene.session.state_root}
        if victim in ("pytest", "worker"):
            timer = Timer(THAW_SECONDS, wake, [pid])
            timer.daemon = True
            timer.start()
        else:
            scene.undo.append(partial(wake, pid))
    return bool(pids)


def wake(pid: int) -> None:
    """Let a process go on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def with_workers(scene: Scene) -> None:
    """Have two workers run four modules."""
    scene.options += ["-n", "2"]


OF_MANAGERS: Final = {
    "manager": ("supervisord", "systemd", "supervisord@nspawn"),
    "agent": ("supervisord@nspawn",),
    "engine": ("docker",),
}


def hit_victims(phase: str, verb: Callable[[str, Scene], bool], victims: tuple[str, ...]) -> Scenario:
    """Return the scenario in which some processes are hit in one moment of a phase."""
    name = f"{' and '.join(victims)} {'killed' if verb is kill else 'frozen'} in {phase}"
    workers = "worker" in victims
    hit = hits(phase, *(partial(verb, victim) for victim in victims), victim="worker" if workers else "pytest")
    managers = next((OF_MANAGERS[victim] for victim in victims if victim in OF_MANAGERS), ())
    return Scenario(
        name,
        "pairs" if len(victims) > 1 else "victims",
        with_workers if workers else lambda _: None,
        hit,
        silent="pytest" in victims and verb is kill,
        said_by_others="crashed while running" if workers and verb is kill else "",
        reaped="guardian" in victims,
        managers=managers,
    )


def victims() -> Iterator[Scenario]:
    """Yield the scenarios of processes that are frozen or killed, alone and in pairs."""
    alone = ("pytest", "guardian", "manager", "agent", "engine", "worker", "server")
    pairs = (
        ("guardian", "pytest"),
        ("manager", "pytest"),
        ("guardian", "manager"),
        ("engine", "pytest"),
        ("agent", "pytest"),
    )
    for phase in PHASES:
        for verb in (kill, freeze):
            yield from (hit_victims(phase, verb, (victim,)) for victim in alone)
            yield from (hit_victims(phase, verb, pair) for pair in pairs)
    for verb in (kill, freeze):
        yield hit_victims("start", verb, ("pytest",))


SCENARIOS: Final = (
    *resource_limits(),
    *file_systems(),
    *environments(),
    *clocks(),
    *records(),
    *things(),
    *victims(),
)
KINDS: Final = tuple(dict.fromkeys(scenario.kind for scenario in SCENARIOS))
