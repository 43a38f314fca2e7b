"""The state of a unit, read from the output of systemctl."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from pytest_nixproc.values.units import Status
from pytest_nixproc.values.value import Value

PROPERTIES: Final = (
    *("Id", "LoadState", "LoadError", "ActiveState", "SubState", "Result", "ControlGroup", "InvocationID"),
    *("MainPID", "ExecMainPID", "ExecMainCode", "ExecMainStatus", "ExecMainStartTimestampMonotonic"),
)

KILLED: Final = ("2", "3")
"""Codes of processes that a signal has ended (sigaction(2): CLD_KILLED, CLD_DUMPED)."""

OWN_STATUSES: Final = {
    200: ("CHDIR", "its directory cannot be entered"),
    201: ("NICE", "its nice level cannot be set"),
    202: ("FDS", "its descriptors cannot be passed on"),
    203: ("EXEC", "its program cannot be executed"),
    204: ("MEMORY", "there is no memory for its start"),
    205: ("LIMITS", "its resource limits cannot be set (LimitCPU= and others)"),
    206: ("OOM_ADJUST", "its OOM score cannot be set (OOMScoreAdjust=)"),
    207: ("SIGNAL_MASK", "its signal mask cannot be set"),
    208: ("STDIN", "its standard input cannot be opened (StandardInput=)"),
    209: ("STDOUT", "its log cannot be opened"),
    210: ("CHROOT", "its root cannot be entered (RootDirectory=, RootImage=)"),
    211: ("IOPRIO", "its I/O scheduling cannot be set (IOSchedulingClass=, IOSchedulingPriority=)"),
    212: ("TIMERSLACK", "its timer slack cannot be set (TimerSlackNSec=)"),
    213: ("SECUREBITS", "its secure bits cannot be set (SecureBits=)"),
    214: ("SETSCHEDULER", "its CPU scheduling cannot be set (CPUSchedulingPolicy=, CPUSchedulingPriority=)"),
    215: ("CPUAFFINITY", "its CPU affinity cannot be set (CPUAffinity=)"),
    216: ("GROUP", "its group cannot be taken on"),
    217: ("USER", "its user cannot be taken on"),
    218: ("CAPABILITIES", "its capabilities cannot be set (CapabilityBoundingSet=, AmbientCapabilities=)"),
    219: ("CGROUP", "its control group cannot be set up"),
    220: ("SETSID", "its session cannot be made"),
    222: ("STDERR", "its standard error cannot be opened (StandardError=)"),
    224: ("PAM", "its PAM session cannot be opened (PAMName=)"),
    225: ("NETWORK", "its network namespace cannot be set up (PrivateNetwork=)"),
    226: ("NAMESPACE", "its namespaces cannot be set up (ProtectSystem=, PrivateTmp=, ReadOnlyPaths= and others)"),
    227: ("NO_NEW_PRIVILEGES", "it cannot be denied new privileges (NoNewPrivileges=)"),
    228: ("SECCOMP", "its system calls cannot be filtered (SystemCallFilter= and others)"),
    229: ("SELINUX_CONTEXT", "its SELinux context cannot be set (SELinuxContext=)"),
    230: ("PERSONALITY", "its execution domain cannot be set (Personality=)"),
    231: ("APPARMOR_PROFILE", "its AppArmor profile cannot be set (AppArmorProfile=)"),
    232: ("ADDRESS_FAMILIES", "its address families cannot be restricted (RestrictAddressFamilies=)"),
    233: ("RUNTIME_DIRECTORY", "its runtime directory cannot be made (RuntimeDirectory=)"),
    236: ("SMACK_PROCESS_LABEL", "its SMACK label cannot be set (SmackProcessLabel=)"),
    237: ("KEYRING", "its keyring cannot be set up (KeyringMode=)"),
    238: ("STATE_DIRECTORY", "its state directory cannot be made (StateDirectory=)"),
    239: ("CACHE_DIRECTORY", "its cache directory cannot be made (CacheDirectory=)"),
    240: ("LOGS_DIRECTORY", "its logs directory cannot be made (LogsDirectory=)"),
    241: ("CONFIGURATION_DIRECTORY", "its configuration directory cannot be made (ConfigurationDirectory=)"),
    242: ("NUMA_POLICY", "its NUMA policy cannot be set (NUMAPolicy=, NUMAMask=)"),
    243: ("CREDENTIALS", "its credentials cannot be set up (LoadCredential=, SetCredential=)"),
    245: ("BPF", "its BPF restrictions cannot be set up (RestrictFileSystems=)"),
}
"""Exit statuses of systemd itself, between fork and exec ("Process Exit Codes" in systemd.exec(5))."""

COMMANDS: Final = ("ExecStartPre", "ExecStart")


class UnitState(Value):
    """The state of one unit, as systemctl shows it."""

    shown: Mapping[str, str]
    """Properties by their names."""

    def __getitem__(self, name: str) -> str:
        return self.shown.get(name, "")

    @property
    def pid(self) -> int | None:
        """The main process that runs."""
        return int(self["MainPID"] or 0) or None

    @property
    def is_running(self) -> bool:
        """Whether systemd counts the unit as active or reloading, or is still stopping its main process."""
        return self["ActiveState"] in ("active", "reloading") or (
            self["ActiveState"] == "deactivating" and bool(self.pid)
        )

    @property
    def has_ended(self) -> bool:
        """Whether the unit was started, and has ended, and is not started again by systemd."""
        was_started = self["ExecMainStartTimestampMonotonic"] not in ("", "0")
        inactive = self["ActiveState"] in ("inactive", "deactivating") and was_started
        return not self.is_running and (inactive or self["ActiveState"] == "failed")

    @property
    def exit_status(self) -> int | None:
        """The end of the unit's main process: a status, or minus a signal's number; None where none has ended."""
        code, status = self["ExecMainCode"], int(self["ExecMainStatus"] or 0)
        if code not in ("1", *KILLED):
            return None
        return -status if code in KILLED else status

    @property
    def is_settled(self) -> bool:
        """Whether systemd is neither starting nor stopping the unit at the moment."""
        return self["ActiveState"] in ("active", "inactive", "failed")

    def status(self, reason: str = "") -> Status:
        """Return the status of the unit; ``reason`` is that of a failure, where it is known."""
        state = f"{self['ActiveState']} ({self['SubState']})"
        result = f"result {self['Result']}" if self["Result"] not in ("", "success") else ""
        text = ", ".join(filter(None, (state, result, reason or self["LoadError"])))
        if self.is_running:
            return Status(running=True, pid=self.pid, text=text)
        return Status(running=False, has_ended=self.has_ended, exit_status=self.exit_status, text=text)


def unit_states(output: str) -> Iterator[UnitState]:
    """Yield the states that ``systemctl show`` has printed, each a paragraph of properties."""
    for paragraph in output.split("\n\n"):
        shown = dict(line.split("=", 1) for line in paragraph.splitlines() if "=" in line)
        if shown:
            yield UnitState(shown)


def ends_of_commands(output: str) -> Mapping[str, tuple[str, str, int]]:
    """Return the last failed command of each directive, such as ``ExecStart``: path, systemd's code, and status.

    Arguments are printed as they are, so that only the beginning and the end of a command can be relied on.
    """
    found = {}
    commands = r"^(Exec\w+)=\{ path=(.*?) ; argv\[\]=(.*?) \}$(?=\nExec|\s*\Z)"
    for name, path, rest in re.findall(commands, output, re.MULTILINE | re.DOTALL):
        ends = re.findall(r" ; code=(\w+) ; status=(\d+)", rest)
        if ends and int(ends[-1][1]):
            found[name] = path, ends[-1][0], int(ends[-1][1])
    return found


def reason_of_end(state: UnitState, output: str) -> str:
    """Return why a unit has failed, from the ends of its commands; empty where its exit status says it."""
    ends = ends_of_commands(output)
    if "ExecStartPre" in ends:
        return f"its initialize {ending(*ends['ExecStartPre'])}"
    if state.exit_status in OWN_STATUSES:
        name, meaning = OWN_STATUSES[state.exit_status]
        path = re.search(r"^ExecStart=\{ path=(.*?) ; argv", output, re.MULTILINE | re.DOTALL)
        return f"{meaning} (status {state.exit_status}/{name}): {path[1] if path else 'unknown'}"
    if "ExecStart" in ends and state.exit_status is None:
        return f"its starter {ending(*ends['ExecStart'])}"
    return ""


def ending(path: str, code: str, status: int) -> str:
    """Return in words how a command has ended."""
    if code == "exited" and status in OWN_STATUSES:
        return f"could not be run ({OWN_STATUSES[status][1]}, status {status}/{OWN_STATUSES[status][0]}): {path}"
    return f"ended with status {status}" if code == "exited" else f"was killed by signal {status}"
