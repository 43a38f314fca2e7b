"""The guardian: a small process that starts all others for us, adopts orphans, and outlives us.

It holds one end of a socket pair, as its standard input; the test process holds the other. When that closes, or when
the test process ends in whatever way, the guardian runs the command that recovers each deployment it was given, last
one first, and then ends what is left below it. Run on its own, without site-packages, by
:mod:`pytest_nixproc.machines.guardian.connection`; it imports only what a bare interpreter has, to be small and quick
to start.

Messages are lines of JSON. Requests: ``{"spawn": ID, "commands": [[ARGV, ENVIRONMENT, PATH, IS_FORKED]]}``,
``{"warm_up": INTERPRETER, "module": NAME}`` (start a template), ``{"guard": ID, "root": PATH, "argv": [], "seconds":
NUMBER}``, ``{"unguard": ID, "root": PATH}``, ``{"strays": ID, "tag": TEXT, "spare": []}``, ``{"synchronize": ID}``,
``{"release": true}`` (let the processes live on). Replies: ``{"ready": PID}``, ``{"spawned": ID, "pids": [], "errors":
[]}``, ``{"exited": [[PID, STATUS]]}``, ``{"guarding": ID}``, ``{"strays": ID, "pids": []}``, ``{"synchronized": ID}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import time

from pytest_nixproc.machines.guardian import LEFT_TO_OTHERS
from pytest_nixproc.machines.guardian.spawning import spawn
from pytest_nixproc.machines.guardian.templates import Templates
from pytest_nixproc.machines.process_table import census, children_of, descendants, environment_of, has_memory, parents
from pytest_nixproc.machines.pursuit import newest_carriers
from pytest_nixproc.machines.subreaper import become_subreaper
from pytest_nixproc.values.system_errors import in_words
from pytest_nixproc.values.tags import DEPLOYMENT

# Not imported from typing: that would take a third of the guardian's start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

GRACE_SECONDS: Final = 1.0
RECOVERY_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0
WALKS: Final = 50
"""How often all processes are looked at, until none has ended meanwhile."""

TIGHT_LOOKS: Final = 500
"""How often children are looked for, one look after another, and killed."""

TAG_NAME: Final = f"{DEPLOYMENT}=".encode()
IGNORED: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTSTP, signal.SIGTERM, signal.SIGPIPE)
PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class Guardian:
    """The loop of the guardian process."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.messages = b""
        self.pending = b""
        self.released = False
        self.ended: dict[int, int] = {}
        self.guarded: dict[str, tuple[list[str], float]] = {}
        self.handed_over: set[str] = set()
        self.spawned: set[int] = set()
        self.templates = Templates([*IGNORED, *PYTHON_IGNORES])
        self.adopts = False
        self.watched = [connection.fileno()]
        with contextlib.suppress(AttributeError, OSError):
            # A child that the test process forked may hold its end of the connection open.
            self.watched.append(os.pidfd_open(os.getppid()))
        self.wakeup, child_ended = os.pipe()
        os.set_blocking(child_ended, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(child_ended, warn_on_full_buffer=False)
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)

    def serve(self) -> None:
        """Answer requests and report ends until the test process is gone; then end all processes that are left."""
        self.adopts = become_subreaper()
        self.send(ready=os.getpid(), adopts=self.adopts)
        while True:
            # A test process that is gone is noticed by the next read.
            with contextlib.suppress(OSError):
                self.connection.sendall(self.messages)
            self.messages = b""
            readable = select.select([*self.watched, self.wakeup], [], [])[0]
            if self.wakeup in readable:
                os.read(self.wakeup, 4096)
                self.reap()
            if self.connection.fileno() in readable:
                if not self.hear():
                    break
            elif self.wakeup not in readable:
                break
        self.templates.end()
        left = self.recover(list(self.guarded))
        if self.released:
            self.linger()
        self.end_all()
        if left:
            # What stood in the way may have been a process that has only now been ended.
            self.recover(left)
            self.end_all()

    def hear(self) -> bool:
        """Carry out the requests that the test process has sent; tell whether it is still there."""
        try:
            received = self.connection.recv(1 << 20)
        except ConnectionError:
            received = b""
        *lines, self.pending = (self.pending + received).split(b"\n")
        for line in lines:
            # A signal may have interrupted who sends within a line; such a line asks nothing, nor does any other that
            # is no request. An error here would take down what is in use.
            with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError, RecursionError):
                self.answer(json.loads(line))
        return bool(received)

    def send(self, **message: Any) -> None:
        """Queue a message, to be sent with the others of this round: each sending wakes the test process up."""
        self.messages += json.dumps(message).encode() + b"\n"

    def answer(self, request: dict[str, Any]) -> None:
        """Carry out one request."""
        if "spawn" in request:
            self.spawn_all(request)
        elif "warm_up" in request:
            self.warm_up(request["warm_up"], request["module"])
        elif "guard" in request:
            self.guarded[request["root"]] = request["argv"], request["seconds"]
            self.send(guarding=request["guard"])
        elif "unguard" in request:
            self.guarded.pop(request["root"], None)
            if self.released:
                self.handed_over.add(request["root"])
            self.send(guarding=request["unguard"])
        elif "strays" in request:
            self.send(strays=request["strays"], pids=self.strays(request["tag"].encode(), set(request["spare"])))
        elif "synchronize" in request:
            self.reap()
            self.send(synchronized=request["synchronize"])
        elif "release" in request:
            self.released = True

    def warm_up(self, interpreter: list[str], module: str) -> None:
        """Start a template, if what is forked from it becomes our child."""
        if self.adopts:
            self.templates.started(interpreter, module)

    def strays(self, tag: bytes, spare: set[int]) -> list[int]:
        """Return the processes below this one that carry a tag.

        Programs can overwrite their environment; those without any tag count too, unless they descend from processes
        to spare, or were started by request. A process whose parent ends while all are looked at may be missed, so
        they are looked at again then: what is not among the strays is believed to be dead. Where there is no end of
        that, all count that were seen.
        """
        found: set[int] = set()
        for _ in range(WALKS):
            if not self.reap() or self.has_templates_alone():
                return []
            seen, is_whole = self.look_below(tag, spare)
            if is_whole:
                return sorted(seen)
            found |= seen
        # What has got away from every look goes on as its own child: the newest processes are looked at closely.
        return sorted(found or newest_carriers(tag))

    def has_templates_alone(self) -> bool:
        """Tell whether only templates run below this process; False where the kernel does not list children."""
        children = children_of(os.getpid())
        return bool(children) and children <= self.templates.pids

    def look_below(self, tag: bytes, spare: set[int]) -> tuple[set[int], bool]:
        """Scan the descendants of this process once; return the strays, and whether the scan is sure to be complete."""
        table, zombies, is_whole = census()
        below = [pid for pid in descendants([os.getpid()], table) if pid not in zombies]
        known = spare | self.spawned | self.templates.pids
        spared = known | set(descendants(known, table))
        found = set()
        for pid in below:
            environment = environment_of(pid)
            tagged = environment.startswith(TAG_NAME) or b"\0" + TAG_NAME in environment
            if tag in environment.split(b"\0") if tagged else pid not in spared:
                found.add(pid)
        # One that has begun to end has no environment, and may have left a child that the census lacks.
        return found, is_whole and all(map(has_memory, below))

    def spawn_all(self, request: dict[str, Any]) -> None:
        """Start the processes of a request; if one of them cannot be started, start the others all the same."""
        pids, errors = [], []
        for argv, environment, output, is_forked in request["commands"]:
            try:
                pids.append(self.spawn(argv, environment, output or os.devnull, is_forked=is_forked))
            except OSError as error:
                errors.append(in_words(OSError(error.errno, error.strerror, argv[0])))
            except ValueError as error:
                # For text that no program can be given: one with a NUL.
                errors.append(f"{error}: {argv[0]}")
        self.spawned.update(pids)
        self.send(spawned=request["spawn"], pids=pids, errors=errors)

    def spawn(self, argv: list[str], environment: dict[str, str], output: str, *, is_forked: bool) -> int:
        """Start a process in a session of its own, with default signals; output is appended to a file."""
        if is_forked and self.adopts and (pid := self.templates.spawn(argv, environment, output)):
            return pid
        return spawn(argv, environment, output, [*IGNORED, *PYTHON_IGNORES])

    def reap(self) -> bool:
        """Keep and report how children have ended, all in one message; return whether there are children left."""
        ended = {}
        try:
            while (waited := os.waitpid(-1, os.WNOHANG))[0]:
                ended[waited[0]] = os.waitstatus_to_exitcode(waited[1])
        except ChildProcessError:
            return False
        else:
            return True
        finally:
            if ended:
                self.spawned.difference_update(ended)
                self.ended.update(ended)
                self.send(exited=list(ended.items()))

    def recover(self, roots: Sequence[str]) -> list[str]:
        """Run the recovery commands of deployments, the last first; return the deployments whose command has failed.

        Each has as long as its programs may take to stop, besides the time that all of them share.
        """
        end = time.monotonic() + RECOVERY_SECONDS
        left = []
        for root in reversed(roots):
            argv, seconds = self.guarded[root]
            end += seconds
            status = self.run(argv, end)
            if status == LEFT_TO_OTHERS:
                self.released = True
                self.handed_over.add(root)
            elif status != 0:
                left.append(root)
        return left

    def run(self, argv: list[str], end: float) -> int | None:
        """Run a command; return its exit status, or None when it has none in time or cannot be started."""
        try:
            pid = spawn(argv, {}, None, [*IGNORED, *PYTHON_IGNORES])
        except (OSError, ValueError):
            return None
        self.ended.pop(pid, None)
        while pid not in self.ended and time.monotonic() < end:
            self.reap()
            self.await_end(0.05)
        return self.ended.get(pid)

    def await_end(self, seconds: float) -> None:
        """Wait until a child ends, for ``seconds`` at most."""
        if select.select([self.wakeup], [], [], seconds)[0]:
            os.read(self.wakeup, 4096)

    def end_all(self) -> None:
        """End every process below this one: SIGTERM, and SIGKILL once the time of grace is over, until none is left."""
        end_of_grace = time.monotonic() + GRACE_SECONDS
        if self.reap():
            self.signal_all(signal.SIGTERM)
        while self.reap():
            if time.monotonic() > end_of_grace:
                self.signal_all(signal.SIGKILL)
                # Whoever goes on as its own child, without a pause, has become a child of ours: these are seen at once.
                for pid in (pid for _ in range(TIGHT_LOOKS) for pid in children_of(os.getpid())):
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
            self.await_end(0.05)

    def signal_all(self, number: int) -> None:
        """Send a signal to every process below this one."""
        for pid in descendants([os.getpid()], parents()):
            try:
                os.kill(pid, number)
            except OSError:
                continue

    def linger(self) -> None:
        """Stay, as the parent of processes that are to live on, until the last one has ended.

        Whoever takes a deployment down in our place cannot see those that have wiped their environment: what still
        runs when its directory is gone is ended by us.
        """
        while self.reap() and (not self.handed_over or any(map(os.path.isdir, self.handed_over))):
            self.await_end(LOOK_SECONDS)


def main() -> None:
    """Run the guardian, whose connection is its standard input."""
    os.umask(0o022)
    Guardian(socket.socket(fileno=os.dup(sys.stdin.fileno()))).serve()
    # The test process waits for the end, and there is nothing to be cleaned up.
    os._exit(0)
