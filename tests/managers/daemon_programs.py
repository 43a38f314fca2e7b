"""Daemons of Python text, whose only argument is their PID file."""

LEAVES_ITS_PLACE = """
import os, signal, sys, time
def write():
    with open(sys.argv[1] + ".new", "w") as file:
        print(os.getpid(), file=file)
    os.rename(sys.argv[1] + ".new", sys.argv[1])
if os.fork():
    os._exit(0)
first = os.getpid()
write()
if os.fork():
    time.sleep(0.3)
    os._exit(0)
while os.getppid() == first:
    time.sleep(0.01)
time.sleep(0.1)
write()
print("up", flush=True)
signal.pause()
"""
"""A daemon whose PID file names a process that lives for a moment, and ends well, and then the daemon itself."""
