"""The foreground proxy, which stands in the foreground for a program that can only be a daemon.

It starts the daemon, finds it by its PID file, passes signals on to it, ends when the daemon really ends, and ends as
the daemon did: with its exit status, or killed by the same signal. A PID file left behind by an earlier process is
not believed, nor one that names a process which the proxy has not started. Run on its own, without site-packages: only
what a bare interpreter has is imported.

How long a daemon may take to write its PID file is for who waits for it, and ends the proxy. A note tells him which
process the daemon is, once its starter has ended well: before that, the daemon is not ready.

Without a PID file it does the same for a program in the foreground that cannot be a container's first process itself:
the kernel spares that one all signals that it does not handle (pid_namespaces(7)), and it has orphans to bury.

As an escort, it leaves the daemon to a manager that finds it by the note, once there is one, and the daemon has not
ended at once: such a manager could not know how.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import time

from pytest_nixproc.machines.process_table import descendants, is_alive, parents, read_file
from pytest_nixproc.machines.subreaper import become_subreaper
from pytest_nixproc.values.pid_files import described, pid_in

# Not imported from typing: there is a proxy for each container, and the import costs as much as a bare interpreter.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, NoReturn

FORWARDED: Final = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGCONT),
)
ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
REMAINDER_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 0.02
SUCCESSION_SECONDS: Final = 0.5
"""How long the PID file may take to name another daemon in the place of one that has ended well."""

SETTLE_SECONDS: Final = 0.05
"""How long an escort watches a daemon that it has started."""

FAILED: Final = 1 << 8
"""The wait status of an ordinary failure."""

SIGNALLED: Final = 128
"""The number that is added to a signal's number in an exit status (POSIX.1 XCU 2.8.2)."""

BOOT: Final = "import sys; sys.path.append(sys.argv[1]); from pytest_nixproc.managers.proxy import {0}; {0}()"


def proxy_argv(python: str, package_root: str, pid_file: str = "", note: str = "") -> tuple[str, ...]:
    """Return the command prefix of the proxy: for a daemon, or without a PID file for a foreground program."""
    return (python, "-I", "-S", "-c", BOOT.format("main"), package_root, pid_file, note)


def escort_argv(python: str, package_root: str, pid_file: str, note: str) -> tuple[str, ...]:
    """Return the command prefix of the escort: for a daemon that a manager then watches by its PID file."""
    return (python, "-I", "-S", "-c", BOOT.format("escort"), package_root, pid_file, note)


class Proxy:
    """The stand-in for one program: it starts the program, forwards signals to it, and waits for its exit status."""

    def __init__(self, pid_file: str, note: str, argv: list[str]) -> None:
        self.pid_file = pid_file
        self.note = note
        self.argv = argv
        self.starter = self.daemon = 0
        self.told: set[int] = set()
        self.statuses: dict[int, int] = {}
        self.arrived: list[int] = []
        # The first process of a PID namespace adopts by itself; ctypes is slow to import.
        self.adopts = os.getpid() == 1 or become_subreaper()
        self.wakeup, signalled = os.pipe()
        os.set_blocking(signalled, False)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        for number in FORWARDED:
            signal.signal(number, lambda arrived, _: self.arrived.append(arrived))
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> int:
        """Run the program; return its wait status."""
        if self.pid_file:
            return self.run_daemon()
        self.daemon = self.start()
        return self.await_status(self.daemon)

    def run_daemon(self) -> int:
        """Run the daemon; return its wait status."""
        if status := self.start_daemon():
            return status
        while True:
            # Where it cannot be written, there is none, and the PID file counts.
            write_note(self.note, f"{self.daemon}\n")
            self.forward()
            # What the daemon leaves behind is not ours to end: it would not be reported.
            status = self.await_status(self.daemon)
            if status or self.told or not (successor := self.successor()):
                return status
            self.daemon = successor

    def hand_over(self) -> int:
        """Start the daemon, and watch it for a moment; return its wait status if it has ended by then, else 0."""
        status = self.start_daemon()
        end = time.monotonic() + SETTLE_SECONDS
        while not (status or self.arrived or self.daemon in self.statuses) and (left := end - time.monotonic()) > 0:
            self.sleep(left)
            self.reap()
        if status or self.daemon in self.statuses:
            status = status or self.statuses[self.daemon]
            print(f"escort: the daemon did not live: {describe_end(status)}", file=sys.stderr, flush=True)
            # Whoever is to find a daemon must not take this for a success.
            return status or FAILED
        self.announce()
        return 0

    def announce(self) -> None:
        """Note the daemon for a manager that reads a number and nothing else from the first line of a file.

        Where that is what the PID file has, it is the note: some daemons leave their place, and the file, to another.
        """
        is_plain = (self.content() or b"").partition(b"\n")[0] == str(self.daemon).encode()
        if problem := write_note(self.note, f"{self.daemon}\n", referred=self.pid_file if is_plain else ""):
            fail(f"{self.note}: {problem}")

    def start_daemon(self) -> int:
        """Start the daemon and find it; return 0, or the wait status of a starter that has failed."""
        write_note(self.note, "")
        stale = pid_in(self.content() or b"") or 0
        if stale and not is_alive(stale):
            os.unlink(self.pid_file)
            stale = 0
        self.starter = self.start()
        if status := self.await_status(self.starter):
            self.end_remainder()
            return status
        self.daemon = self.await_daemon({self.starter, stale})
        return 0

    def start(self) -> int:
        """Start the command line of the program, from which a daemon forks; return its pid."""
        try:
            return os.posix_spawn(self.argv[0], self.argv, os.environ, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])
        except OSError as error:
            fail(f"{self.argv[0]}: {error.strerror}")

    def content(self) -> bytes | None:
        """Return the content of the PID file; None when there is none."""
        try:
            return read_file(self.pid_file)
        except OSError:
            return None

    def await_daemon(self, others: set[int]) -> int:
        """Wait until the file has the PID of a process of ours, not in ``others``, that runs or has just ended."""
        told_to_end = False
        while not told_to_end:
            # In this order: a daemon that has ended by now, or that a test has seen, has written its PID file before.
            has_children, told_to_end = self.reap(), not ENDING.isdisjoint(self.arrived)
            pid = pid_in(self.content() or b"")
            if pid and pid not in others and self.is_daemon(pid, has_children=has_children):
                return pid
            if self.adopts and not has_children:
                # Without a PID file, the daemon was the process that has failed last.
                failed = [pid for pid, status in self.statuses.items() if status]
                return failed[-1] if failed else self.fail("the daemon ended before its PID file named it")
            self.sleep(LOOK_SECONDS)
        self.end_remainder()
        return self.fail("told to end before its PID file named the daemon")

    def is_daemon(self, pid: int, *, has_children: bool) -> bool:
        """Tell whether a process that the PID file names can be the daemon: one of ours that lives, or has failed.

        One that has ended well may have been on the way from the starter to the daemon, while there are others.
        """
        if pid in self.statuses:
            return bool(self.statuses[pid]) or not has_children
        return is_alive(pid) and (not self.adopts or pid in descendants([os.getpid()], parents()))

    def successor(self) -> int:
        """Return the process of ours that the PID file names in the place of a daemon that has ended well, or 0."""
        end = time.monotonic() + SUCCESSION_SECONDS
        while self.reap() and ENDING.isdisjoint(self.arrived) and (left := end - time.monotonic()) > 0:
            pid = pid_in(self.content() or b"")
            if pid and pid not in self.statuses and pid != self.starter and self.is_daemon(pid, has_children=True):
                return pid
            self.sleep(min(left, LOOK_SECONDS))
        return 0

    def fail(self, problem: str) -> NoReturn:
        """End with a message about the PID file."""
        fail(f"{problem}: {self.pid_file} {described(self.content())}")

    def await_status(self, pid: int) -> int:
        """Wait until a process ends; return its wait status, 0 where it cannot be seen."""
        while pid not in self.statuses:
            children = self.reap()
            if pid in self.statuses or (not (children and self.adopts) and not is_alive(pid)):
                break
            self.sleep(None if self.adopts else LOOK_SECONDS)
            self.forward()
        return self.statuses.get(pid, 0)

    def reap(self) -> bool:
        """Collect the statuses of children that have ended; return whether there are other children."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            self.statuses[pid] = status

    def sleep(self, seconds: float | None) -> None:
        """Sleep until a signal comes, or for some seconds."""
        if select.select([self.wakeup], [], [], seconds)[0]:
            os.read(self.wakeup, 4096)

    def forward(self) -> None:
        """Pass on the signals that have arrived.

        The starter gets those that ask for an end, and the daemon gets them all the same: the starter may have done
        its work, and be gone before it looks.
        """
        if not self.daemon:
            for number in ENDING.intersection(self.arrived) - self.told:
                os.kill(self.starter, number)
                self.told.add(number)
        while self.daemon and self.arrived:
            arrived = self.arrived.pop(0)
            self.told |= ENDING & {arrived}
            send(self.daemon, arrived)

    def end_remainder(self) -> None:
        """End all descendants, among which the daemon could not be found: by SIGTERM, and by SIGKILL after a second."""
        end = time.monotonic() + REMAINDER_SECONDS
        while self.reap():
            number = signal.SIGKILL if time.monotonic() > end else signal.SIGTERM
            for pid in descendants([os.getpid()], parents()):
                send(pid, number)
            select.select([], [], [], LOOK_SECONDS)


def write_note(path: str, text: str, *, referred: str = "") -> str:
    """Write a note anew, or make it another name of the file that is ``referred`` to; return why that fails, or ''."""
    try:
        # To write into that of an earlier process might be to write into its PID file.
        if os.path.lexists(path):
            os.unlink(path)
        if referred:
            os.symlink(referred, path)
        else:
            # Nor into what another user may have put there in this moment, where everybody can write.
            with open(path, "x", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        return str(error.strerror)
    return ""


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def fail(problem: str) -> NoReturn:
    """Print an error message, and exit with status 1."""
    sys.exit(f"foreground proxy: {problem}")


def describe_end(status: int) -> str:
    """Return a wait status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"killed by signal {-code}" if code < 0 else f"status {code}"


def end_as(status: int) -> NoReturn:
    """End this process as a wait status says: by the same signal, or with the same exit status."""
    if os.WIFSIGNALED(status):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    code = os.waitstatus_to_exitcode(status)
    # Still there after the signal: the first process of a container reports it as a shell would.
    sys.exit(SIGNALLED - code if code < 0 else code)


def main() -> None:
    """Run the daemon of the command line: package root, PID file, note, program, arguments."""
    end_as(Proxy(sys.argv[2], sys.argv[3], sys.argv[4:]).run())


def escort() -> None:
    """Start the daemon of the command line, and exit when the manager can watch it by its PID file."""
    end_as(Proxy(sys.argv[2], sys.argv[3], sys.argv[4:]).hand_over())
