# The basic system: one web application behind a reverse proxy.
{ system ? builtins.currentSystem
, stateDir ? "/var"
, runtimeDir ? "${stateDir}/run"
, logDir ? "${stateDir}/log"
, cacheDir ? "${stateDir}/cache"
, tmpDir ? (if stateDir == "/var" then "/tmp" else "${stateDir}/tmp")
, forceDisableUserChange ? false
, processManager ? null
, callingUser ? "root"
, callingGroup ? "root"
, basePort ? 5000
, proxyPort ? 8080
}:

let
  constructors = import ./constructors.nix {
    inherit system stateDir runtimeDir logDir cacheDir tmpDir forceDisableUserChange processManager;
    inherit callingUser callingGroup;
  };
in
rec {
  webapp1 = rec {
    port = basePort + 1;
    dnsName = "webapp1.local";
    pkg = constructors.webapp { inherit port; instanceSuffix = "1"; };
  };

  nginxReverseProxy = rec {
    port = proxyPort;
    pkg = constructors.nginxReverseProxy { inherit port; webapps = [ webapp1 ]; };
  };
}
