"""The options: each on the command line, in the environment and in the ini file, in this order of precedence."""

from __future__ import annotations

import os
from typing import Final, Literal, cast

import pytest

from pytest_nixproc.values.value import Value

Scope = Literal["session", "package", "module", "class", "function"]
Shape = Literal["value", "values", "flag"]


class Option(Value):
    """One option of the plugin."""

    name: str
    """The name without the plugin's prefix."""

    default: str
    """The default value; empty for none."""

    metavar: str
    """The form of the value, for the help text."""

    help: str
    shape: Shape = "value"
    """Whether it has a value, a repeatable value, or none."""

    choices: tuple[str, ...] = ()
    """The values that it allows; empty for any."""

    @property
    def flag(self) -> str:
        """The option of the command line: ``--nixproc-NAME``."""
        return f"--nixproc-{self.name}"

    @property
    def ini(self) -> str:
        """The name in the ini file: ``nixproc_NAME``."""
        return f"nixproc_{self.name.replace('-', '_')}"

    @property
    def variable(self) -> str:
        """The environment variable: ``NIXPROC_NAME``."""
        return self.ini.upper()


PROFILES: Final = ("unprivileged", "privileged")
PROFILE_CHOICES: Final = (*PROFILES, "all")
KEEP: Final = ("never", "failed", "always")
NETWORKS: Final = ("host", "private")
FORMATS: Final = ("text", "json", "sarif")
SCOPES: Final = ("session", "package", "module", "class", "function")

OPTIONS: Final = (
    Option("manager", "supervisord", "NAME[,NAME...]|all",
           "process managers to deploy with; all: every registered one, skipped where it cannot run"),
    Option("require", "", "NAME[,NAME...]|all", "managers and machines that must be there: absence is an error"),
    Option("profile", "unprivileged", "NAME", "who processes run as; all: both profiles", choices=PROFILE_CHOICES),
    Option("disposable-host", "", "", "this host may be polluted: users and groups are created on it", "flag"),
    Option("machine", "host", "NAME", "where the system runs: host, nspawn, or another that is registered"),
    Option("network", "host", "NAME", "the network of a throwaway machine: the host's, or its own", choices=NETWORKS),
    Option("model", "", "PATH", "the processes model that nixproc_system deploys by default"),
    Option("model-files", "", "GLOB[,GLOB...]", "model files that are test modules by themselves, beside those given"),
    Option("constructor", "", "FILE:NAME", "validate a constructor with instances side by side; repeatable", "values"),
    Option("vary", "", "NAME=[VALUE,...]", "values of a parameter, one for each instance; repeatable", "values"),
    Option("param", "", "NAME=VALUE", "argument for the model, a JSON value or else a string; repeatable", "values"),
    Option("id-resources", "", "FILE", "pools of ids for a model in Nix, in place of the idresources.nix beside it"),
    Option("ids", "", "FILE", "assigned ids for a model in Nix, in place of the ids.nix beside it"),
    Option("scope", "module", "SCOPE", "how long nixproc_system lives", choices=SCOPES),
    Option("share", "", "", "let the workers of pytest-xdist use one system; needs scope session", "flag"),
    Option("keep", "never", "WHEN", "when to keep a system and its state for looking at", choices=KEEP),
    Option("state-root", "", "DIR", "where throwaway state directories are made (short: sockets lie below it)"),
    Option("start-timeout", "30", "SECONDS", "how long an instance may take until it is ready"),
    Option("stop-timeout", "10", "SECONDS", "how long processes may take to stop before they are killed"),
    Option("build-timeout", "600", "SECONDS", "how long a program may take that evaluates or builds a model (Nix)"),
    Option("download", "", "", "let evaluations and builds download files that this machine lacks", "flag"),
    Option("conformance-results", "", "DIR", "write the results of the conformance suite into this directory, as JSON"),
    Option("select", "", "CODE[,CODE...]", "codes of the only rules to apply, or their beginnings"),
    Option("ignore", "", "CODE[,CODE...]", "codes of rules not to apply, or their beginnings"),
    Option("findings", "text", "FORMAT[:FILE]", "how the findings of the checks are written: text, json or sarif"),
    Option("plan", "", "", "print the steps of a deployment, their places and their order; start nothing", "flag"),
    Option("list-managers", "", "", "print the managers, whether they can run here, and their capabilities", "flag"),
)  # fmt: skip

BY_NAME: Final = {option.name: option for option in OPTIONS}


def add_options(parser: pytest.Parser) -> None:
    """Declare all options."""
    group = parser.getgroup("nixproc", "deployed processes (pytest-nixproc)")
    for option in OPTIONS:
        text = f"{option.help} [default: {option.default}]" if option.default else option.help
        if option.shape == "flag":
            group.addoption(option.flag, action="store_true", default=None, help=text)
        else:
            action = "append" if option.shape == "values" else "store"
            group.addoption(option.flag, action=action, default=None, metavar=option.metavar, help=text)
        ini_type: Literal["linelist", "string"] = "linelist" if option.shape == "values" else "string"
        parser.addini(option.ini, text, type=ini_type, default=None)


def given(config: pytest.Config, name: str) -> str | None:
    """Return an option's value as the user gave it, the values of a repeatable one as lines; None if not given."""
    option = BY_NAME[name]
    value = config.getoption(option.flag)
    if value is not None:
        return "\n".join(value) if isinstance(value, list) else str(value)
    if option.variable in os.environ:
        return os.environ[option.variable]
    value = config.getini(option.ini)
    return "\n".join(value) if isinstance(value, list) and value else value or None


def read(config: pytest.Config, name: str) -> str:
    """Return an option's value; a value that it does not allow is a usage error."""
    option = BY_NAME[name]
    said = given(config, name)
    value = option.default if said is None else said
    if option.choices and value not in option.choices:
        raise pytest.UsageError(f"{option.flag}={value}: choose one of {', '.join(option.choices)}")
    return value


def read_scope(config: pytest.Config) -> Scope:
    """Return the scope of systems, in the form that pytest's fixtures take."""
    return cast("Scope", read(config, "scope"))


def read_flag(config: pytest.Config, name: str) -> bool:
    """Return whether a flag is set; in the environment and ini file, 0, no and false mean no."""
    return (given(config, name) or "").lower() not in ("", "0", "no", "false", "off")


def read_names(config: pytest.Config, name: str) -> list[str]:
    """Return a comma-separated option as a list."""
    from pytest_nixproc.model.names import names_in

    return names_in(read(config, name))


def read_seconds(config: pytest.Config, name: str) -> float:
    """Return an option as a positive number of seconds."""
    text = read(config, name)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise pytest.UsageError(f"{BY_NAME[name].flag}={text}: give a positive number of seconds")
    return seconds


def read_params(config: pytest.Config, option: str = "param") -> dict[str, object]:
    """Return the arguments for the model, or those of another option of this form."""
    from pytest_nixproc.errors import NixprocError
    from pytest_nixproc.sources.api import params_in

    try:
        return params_in(read(config, option).splitlines())
    except NixprocError as error:
        raise pytest.UsageError(f"{BY_NAME[option].flag}={error.brief}") from None


def read_path(config: pytest.Config, name: str) -> str:
    """Return an option's path, relative to where pytest was called; empty without one."""
    path = read(config, name)
    return str(config.invocation_params.dir / path) if path else ""


def read_findings(config: pytest.Config) -> tuple[str, str]:
    """Return the format of the findings, and the path of their file; an empty one is the terminal's output."""
    kind, _, path = read(config, "findings").partition(":")
    if kind not in FORMATS:
        raise pytest.UsageError(f"{BY_NAME['findings'].flag}={kind}: choose one of {', '.join(FORMATS)}")
    return kind, str(config.invocation_params.dir / path) if path else ""


def refuse_missing_directory(path: str) -> None:
    """Raise a usage error if the findings are to be written where there is no directory."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise pytest.UsageError(f"{BY_NAME['findings'].flag}: there is no directory {directory}")


def file_and_name(text: str) -> tuple[str, str]:
    """Return the parts of ``FILE:NAME``, where a name may be a path of them: ``web.server``."""
    file, colon, name = text.strip().rpartition(":")
    if not colon or not file or not all(part.replace("-", "_").isidentifier() for part in name.split(".")):
        raise pytest.UsageError(f"{BY_NAME['constructor'].flag}={text}: write FILE:NAME")
    return file, name
