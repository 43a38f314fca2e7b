# The library that expressions import as <pytest-nixproc>. It needs neither nixpkgs nor upstream's framework.
#
# Where processes will run is passed in, as upstream's functions want it; what a process makes of it is decided by
# the generators of pytest-nixproc, after the expression has been evaluated. So most of it only has to be accepted here.
{ pkgs ? null
, system ? builtins.currentSystem
, stateDir ? "/var"
, runtimeDir ? "${stateDir}/run"
, logDir ? "${stateDir}/log"
, cacheDir ? "${stateDir}/cache"
, spoolDir ? "${stateDir}/spool"
, lockDir ? "${stateDir}/lock"
, libDir ? "${stateDir}/lib"
, tmpDir ? (if stateDir == "/var" then "/tmp" else "${stateDir}/tmp")
, forceDisableUserChange ? false
, processManager ? null
, ids ? { }
}:

rec {
  # Describes one process for all managers. The result has all parameters with their defaults; `given` are those that
  # were set, which is what the generators start from.
  createManagedProcess = import ./create-managed-process.nix { inherit createCredentials runtimeDir tmpDir; };

  # Returns groups and users, with the numbers that were assigned to those that have none of their own.
  createCredentials = import ./create-credentials.nix { inherit ids; };
}
