"""Values and names that some syntax on the way from a model to a process treats specially."""

from __future__ import annotations

from typing import Final

HOSTILE: Final = (
    *("", " ", "a b", "  two  blanks  ", "it's", "'", 'say "hi"', '"', "'\"'", "50%", "%(x)s", "%s %%", "%(ENV_HOME)s"),
    *("$HOME", "${HOME}", "$(id)", "`id`", "$", "back\\slash", "\\n", "ends in \\", "two\nlines", "\n", "ends in\n"),
    *("tab\there", "\r", "\x01\x7f", ";", "a;b", " ;x", "a ;b", "#", "# no comment", "a #b", "naïve", "日本", "\udcff"),
    *("-e", "-n", "--", "-", "*", "?", "[a-z]", "~", "~root", "{a,b}", "!", "!!", "&", "&&", "|", "<", ">", "(", ")"),
    *("=", "a=b", ",", ':"', "\\'", '\\"', "]", "}", "@", "^", "x" * 5000),
)
"""Values that some syntax on the way treats specially; the surrogate stands for a byte that is no UTF-8."""

HOSTILE_NAMES: Final = (
    *("pid", "name", "pid_file", "program", "record", "started", "stat", "known", "naps", "log_file", "VERBOSE"),
    *("stop_signal", "reload_signal", "stop_seconds", "HOME", "ENV", "BASH_ENV", "CDPATH", "PS4", "LANG", "USER"),
    *("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "TMPDIR", "POSIXLY_CORRECT", "SUPERVISOR_ENABLED", "_x", "x"),
)
"""Variables that a script, a shell, or an interpreter on the way may use itself."""

SPECIAL_NAMES: Final = ("PPID", "OPTIND", "UID", "LINENO", "RANDOM", "SHELLOPTS", "GROUPS", "LC_ALL")
"""Variables to which some shells do not let one assign what one likes: they arrive, or are refused."""

HOSTILE_FILE_NAME: Final = "a b' \" % %(x)s $HOME `id` \\ ; # naïve\n~*"
AWKWARD_NAMES: Final = (
    "a b",
    "it's",
    'q"q',
    "50%",
    "$HOME",
    "`id`",
    "a;b",
    "a ;b",
    "a #b",
    "naïve",
    "a:b",
    "a]b",
    "a,b",
    "~x",
    "*",
)
OTHER_STATE_ROOTS: Final = ('it\'s "here"', "50% %(x)s", "$HOME `id`;x ;x #x \\", "naïve*[a]", "a\nb")
