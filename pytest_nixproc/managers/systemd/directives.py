"""The directives of a service's unit file, and what systemd takes for those that have few values.

They are those in the tables of its own parser (load-fragment-gperf.gperf.in) from version 252, the oldest here, to 262:
those of systemd.directives(7), and those that it takes for the sake of old units.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pytest_nixproc.errors import Fault
from pytest_nixproc.managers import kinds
from pytest_nixproc.model.value_types import ValueType

TESTS: Final = """
ACPower Architecture CPUFeature CPUPressure CPUs Capability ControlGroupController Credential DirectoryNotEmpty
Environment FileIsExecutable FileNotEmpty Firmware FirstBoot Fraction Group Host IOPressure KernelCommandLine
KernelModuleLoaded KernelVersion MachineTag Memory MemoryPressure NeedsUpdate OSRelease PathExists PathExistsGlob
PathIsDirectory PathIsEncrypted PathIsMountPoint PathIsReadWrite PathIsSocket PathIsSymbolicLink Security User Version
Virtualization
"""
"""What a unit can make a condition of, or assert."""

OF_UNITS: Final = """
After AllowIsolate Before BindTo BindsTo CollectMode Conflicts DefaultDependencies Description Documentation
FailureAction FailureActionExitStatus IgnoreOnIsolate IgnoreOnSnapshot JobRunningTimeoutSec JobTimeoutAction
JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf OnFailure OnFailureIsolate OnFailureJobMode OnSuccess
OnSuccessJobMode PartOf PropagateReloadFrom PropagateReloadTo PropagatesReloadTo PropagatesStopTo RebootArgument
RefuseManualStart RefuseManualStop ReloadPropagatedFrom Requires RequiresMountsFor RequiresOverridable Requisite
RequisiteOverridable SourcePath StartLimitAction StartLimitBurst StartLimitInterval StartLimitIntervalSec
StopPropagatedFrom StopWhenUnneeded SuccessAction SuccessActionExitStatus SurviveFinalKillSignal Upholds Wants
WantsMountsFor
"""

OF_SERVICES: Final = """
AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFDelegateAttachments BPFDelegateCommands
BPFDelegateMaps BPFDelegatePrograms BPFProgram BindLogSockets BindNetworkInterface BindPaths BindReadOnlyPaths
BlockIOAccounting BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight BlockIOWriteBandwidth BusName BusPolicy
CPUAccounting CPUAffinity CPUPressureThresholdSec CPUPressureWatch CPUQuota CPUQuotaPeriodSec CPUSchedulingPolicy
CPUSchedulingPriority CPUSchedulingResetOnFork CPUSetPartition CPUShares CPUWeight CacheDirectory
CacheDirectoryAccounting CacheDirectoryMode CacheDirectoryQuota Capabilities CapabilityBoundingSet
ConfigurationDirectory ConfigurationDirectoryMode CoredumpFilter CoredumpReceive DefaultMemoryLow DefaultMemoryMin
DefaultStartupMemoryLow Delegate DelegateNamespaces DelegateSubgroup DeviceAllow DevicePolicy DisableControllers
DynamicUser Environment EnvironmentFile ExecCondition ExecPaths ExecReload ExecReloadPost ExecSearchPath ExecStart
ExecStartPost ExecStartPre ExecStop ExecStopPost ExitType ExtensionDirectories ExtensionImagePolicy ExtensionImages
FailureAction FileDescriptorStoreMax FileDescriptorStorePreserve FinalKillSignal Group GuessMainPID IOAccounting
IODeviceLatencyTargetSec IODeviceWeight IOPressureThresholdSec IOPressureWatch IOReadBandwidthMax IOReadIOPSMax
IOSchedulingClass IOSchedulingPriority IOWeight IOWriteBandwidthMax IOWriteIOPSMax IPAccounting IPAddressAllow
IPAddressDeny IPCNamespacePath IPEgressFilterPath IPIngressFilterPath IgnoreSIGPIPE ImportCredential
InaccessibleDirectories InaccessiblePaths KeyringMode KillMode KillSignal LUOSession LimitAS LimitCORE LimitCPU
LimitDATA LimitFSIZE LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitRTPRIO
LimitRTTIME LimitSIGPENDING LimitSTACK LoadCredential LoadCredentialEncrypted LockPersonality LogExtraFields
LogFilterPatterns LogLevelMax LogNamespace LogRateLimitBurst LogRateLimitIntervalSec LogsDirectory
LogsDirectoryAccounting LogsDirectoryMode LogsDirectoryQuota ManagedOOMMemoryPressure
ManagedOOMMemoryPressureDurationSec ManagedOOMMemoryPressureLimit ManagedOOMPreference ManagedOOMSwap MemoryAccounting
MemoryDenyWriteExecute MemoryHigh MemoryKSM MemoryLimit MemoryLow MemoryMax MemoryMin MemoryPressureThresholdSec
MemoryPressureWatch MemorySwapMax MemoryTHP MemoryZSwapMax MemoryZSwapWriteback MountAPIVFS MountFlags
MountImagePolicy MountImages NFTSet NUMAMask NUMAPolicy NetClass NetworkNamespacePath Nice NoExecPaths NoNewPrivileges
NonBlocking NotifyAccess OOMPolicy OOMRules OOMScoreAdjust OpenFile PAMName PIDFile PassEnvironment
PermissionsStartOnly Personality PrivateBPF PrivateDevices PrivateIPC PrivateMounts PrivateNetwork PrivatePIDs
PrivateTmp PrivateUsers ProcSubset ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs
ProtectKernelModules ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyDirectories ReadOnlyPaths
ReadWriteDirectories ReadWritePaths RebootArgument RefreshOnReload ReloadSignal RemainAfterExit RemoveIPC Restart
RestartForceExitStatus RestartKillSignal RestartMaxDelaySec RestartMode RestartPreventExitStatus
RestartRandomizedDelaySec RestartSec RestartSteps RestrictAddressFamilies RestrictFileSystems RestrictNamespaces
RestrictNetworkInterfaces RestrictRealtime RestrictSUIDSGID RootDirectory RootDirectoryStartOnly RootEphemeral
RootHash RootHashSignature RootImage RootImageOptions RootImagePolicy RootMStack RootVerity RuntimeDirectory
RuntimeDirectoryMode RuntimeDirectoryPreserve RuntimeMaxSec RuntimeRandomizedExtraSec SELinuxContext SecureBits
SendSIGHUP SendSIGKILL SetCredential SetCredentialEncrypted SetLoginEnvironment Slice SmackProcessLabel
SocketBindAllow SocketBindDeny Sockets StandardError StandardErrorFileDescriptor StandardInput StandardInputData
StandardInputFileDescriptor StandardInputText StandardOutput StandardOutputFileDescriptor StartLimitAction
StartLimitBurst StartLimitInterval StartupAllowedCPUs StartupAllowedMemoryNodes StartupBlockIOWeight StartupCPUShares
StartupCPUWeight StartupIOWeight StartupMemoryHigh StartupMemoryLow StartupMemoryMax StartupMemorySwapMax
StartupMemoryZSwapMax StateDirectory StateDirectoryAccounting StateDirectoryMode StateDirectoryQuota SuccessExitStatus
SupplementaryGroups SysVStartPriority SyslogFacility SyslogIdentifier SyslogLevel SyslogLevelPrefix
SystemCallArchitectures SystemCallErrorNumber SystemCallFilter SystemCallLog TTYColumns TTYPath TTYReset TTYRows
TTYVHangup TTYVTDisallocate TasksAccounting TasksMax TemporaryFileSystem TimeoutAbortSec TimeoutCleanSec TimeoutSec
TimeoutStartFailureMode TimeoutStartSec TimeoutStopFailureMode TimeoutStopSec TimerSlackNSec Type UMask
USBFunctionDescriptors USBFunctionStrings UnsetEnvironment User UserNamespacePath UtmpIdentifier UtmpMode WatchdogSec
WatchdogSignal WorkingDirectory
"""

OF_INSTALLATIONS: Final = "Alias Also DefaultInstance RequiredBy UpheldBy WantedBy"

DIRECTIVES: Final[Mapping[str, frozenset[str]]] = {
    "Unit": frozenset(OF_UNITS.split())
    | {f"{kind}{test}" for kind in ("Condition", "Assert") for test in TESTS.split()},
    "Service": frozenset(OF_SERVICES.split()),
    "Install": frozenset(OF_INSTALLATIONS.split()),
}
"""The directives of each section."""

ACTIONS: Final = (
    *("none", "reboot", "reboot-force", "reboot-immediate", "poweroff", "poweroff-force", "poweroff-immediate"),
    *("exit", "exit-force", "soft-reboot", "soft-reboot-force", "kexec", "kexec-force"),
    *("halt", "halt-force", "halt-immediate"),
)
JOB_MODES: Final = (
    *("fail", "replace", "replace-irreversibly", "isolate", "flush"),
    *("ignore-dependencies", "ignore-requirements"),
)
RESTARTS: Final = ("no", "on-success", "on-failure", "on-abnormal", "on-watchdog", "on-abort", "always")
TYPES: Final = ("simple", "exec", "forking", "oneshot", "dbus", "notify", "notify-reload", "idle")

UNITS_OF_TIME: Final = (
    "nsec|ns|usec|us|µs|μs|msec|ms|seconds?|sec|s|minutes?|min|months?|m|hours?|hr|h|days?|d|weeks?|w|M|years?|y"
)
TIME: Final = rf"\s*([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*({UNITS_OF_TIME})?\s*"

BOOLEAN: Final = kinds.written_as("yes or no", "(?i)1|yes|y|true|t|on|0|no|n|false|f|off", "yes", "no", "true", "false")
TIME_SPAN: Final = kinds.written_as("a time span (systemd.time(7))", f"infinity|({TIME})+", "infinity")
NUMBER: Final = kinds.written_as("a whole number, 0 or more", r"\+?(0[xX][0-9a-fA-F]+|0[bo][0-7]+|[0-9]+)")
OCTAL: Final = kinds.written_as("octal digits", "0*[0-7]{1,4}")
NICE: Final = kinds.that("a whole number from -20 to 19", lambda value: is_between(value, -20, 19))
OOM_SCORE: Final = kinds.that("a whole number from -1000 to 1000", lambda value: is_between(value, -1000, 1000))
FILES: Final = r"socket|fd(:.*)?|(file|append|truncate):.+"
OUTPUT: Final = kinds.one_of(
    *("inherit", "null", "tty", "journal", "kmsg", "journal+console", "kmsg+console", "syslog", "syslog+console"),
    or_else=kinds.written_as("socket, fd:NAME, or file:, append: or truncate: with a path", FILES),
)


def is_between(value: object, least: int, most: int) -> bool:
    """Tell whether a value is a whole number within bounds."""
    return bool(re.fullmatch(r"[+-]?[0-9]{1,9}", str(value))) and least <= int(str(value)) <= most


def each(kind: ValueType) -> ValueType:
    """Return the kind of a directive: a value, or several one after another; an empty one resets it."""

    def read(value: object, path: str, faults: list[Fault]) -> object:
        for item in value if isinstance(value, list | tuple) else (value,):
            if item != "":
                kind.read(item, path, faults)
        return value

    return ValueType(kind.title, read)


GROUPS: Final[tuple[tuple[ValueType, str], ...]] = (
    (
        BOOLEAN,
        """
        AllowIsolate BindLogSockets BlockIOAccounting CPUAccounting CPUSchedulingResetOnFork CacheDirectoryAccounting
        CoredumpReceive DefaultDependencies DynamicUser GuessMainPID IOAccounting IPAccounting IgnoreOnIsolate
        IgnoreSIGPIPE LockPersonality LogsDirectoryAccounting MemoryAccounting MemoryDenyWriteExecute MemoryKSM
        MemoryZSwapWriteback MountAPIVFS NoNewPrivileges NonBlocking OnFailureIsolate PermissionsStartOnly
        PrivateDevices PrivateIPC PrivateMounts PrivateNetwork ProtectClock ProtectKernelLogs ProtectKernelModules
        ProtectKernelTunables RefuseManualStart RefuseManualStop RemainAfterExit RemoveIPC RestrictRealtime
        RestrictSUIDSGID RootDirectoryStartOnly RootEphemeral SendSIGHUP SendSIGKILL SetLoginEnvironment
        StateDirectoryAccounting StopWhenUnneeded SurviveFinalKillSignal SyslogLevelPrefix TTYReset TTYVHangup
        TTYVTDisallocate TasksAccounting
        """,
    ),
    (
        TIME_SPAN,
        """
        CPUPressureThresholdSec CPUQuotaPeriodSec IOPressureThresholdSec JobRunningTimeoutSec JobTimeoutSec
        LogRateLimitIntervalSec ManagedOOMMemoryPressureDurationSec MemoryPressureThresholdSec RestartMaxDelaySec
        RestartRandomizedDelaySec RestartSec RuntimeMaxSec RuntimeRandomizedExtraSec StartLimitInterval
        StartLimitIntervalSec TimeoutAbortSec TimeoutCleanSec TimeoutSec TimeoutStartSec TimeoutStopSec TimerSlackNSec
        WatchdogSec
        """,
    ),
    (NUMBER, "FileDescriptorStoreMax LogRateLimitBurst RestartSteps StartLimitBurst"),
    (
        OCTAL,
        "CacheDirectoryMode ConfigurationDirectoryMode LogsDirectoryMode RuntimeDirectoryMode StateDirectoryMode UMask",
    ),
    (NICE, "Nice"),
    (OOM_SCORE, "OOMScoreAdjust"),
    (kinds.SIGNAL, "FinalKillSignal KillSignal ReloadSignal RestartKillSignal WatchdogSignal"),
    (OUTPUT, "StandardError StandardOutput"),
    (kinds.one_of(*RESTARTS), "Restart"),
    (kinds.one_of("normal", "direct", "debug"), "RestartMode"),
    (kinds.one_of(*TYPES), "Type"),
    (kinds.one_of("main", "cgroup"), "ExitType"),
    (kinds.one_of("none", "main", "exec", "all"), "NotifyAccess"),
    (kinds.one_of("continue", "stop", "kill"), "OOMPolicy"),
    (kinds.one_of("control-group", "mixed", "process", "none"), "KillMode"),
    (kinds.one_of("terminate", "abort", "kill"), "TimeoutStartFailureMode TimeoutStopFailureMode"),
    (kinds.one_of("full", "strict", or_else=BOOLEAN), "ProtectSystem"),
    (kinds.one_of("read-only", "tmpfs", or_else=BOOLEAN), "ProtectHome"),
    (kinds.one_of("disconnected", or_else=BOOLEAN), "PrivateTmp"),
    (kinds.one_of("noaccess", "invisible", "ptraceable", "default"), "ProtectProc"),
    (kinds.one_of("all", "pid"), "ProcSubset"),
    (kinds.one_of("inherit", "private", "shared"), "KeyringMode"),
    (kinds.one_of("auto", "closed", "strict"), "DevicePolicy"),
    (kinds.one_of("init", "login", "user"), "UtmpMode"),
    (kinds.one_of("inactive", "inactive-or-failed"), "CollectMode"),
    (kinds.one_of("restart", or_else=BOOLEAN), "RuntimeDirectoryPreserve"),
    (kinds.one_of("auto", "kill"), "ManagedOOMMemoryPressure ManagedOOMSwap"),
    (kinds.one_of("none", "avoid", "omit"), "ManagedOOMPreference"),
    (kinds.one_of(*JOB_MODES), "OnFailureJobMode OnSuccessJobMode"),
    (kinds.one_of(*ACTIONS), "FailureAction JobTimeoutAction StartLimitAction SuccessAction"),
)

KINDS: Final[Mapping[str, ValueType]] = {name: each(kind) for kind, names in GROUPS for name in names.split()}
"""What systemd takes for directives whose values can be told from others by themselves; all else is left to it."""


def section_of(directive: str) -> str | None:
    """Return the section that a directive belongs into, if there is one."""
    return next((section for section, directives in DIRECTIVES.items() if directive in directives), None)
