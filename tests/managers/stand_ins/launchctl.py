"""A launchctl that asks the tests' own launchd: ``DIRECTORY WORD...``; it is started for each call, so it is small."""

import sys
from _socket import AF_UNIX, socket

directory, *words = sys.argv[1:]
connection = socket(AF_UNIX)
connection.connect(f"{directory}/socket")
connection.sendall("\0".join([*words, ""]).encode() + b"\n")
answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
status, output, errors = answer.decode().split("\0")
sys.stdout.write(output)
sys.stderr.write(errors)
sys.exit(int(status))
