# The advanced system: six web applications, four behind one reverse proxy and two behind another.
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

  webapp = number: rec {
    port = basePort + number;
    dnsName = "webapp${toString number}.local";
    pkg = constructors.webapp { inherit port; instanceSuffix = toString number; };
  };
in
rec {
  webapp1 = webapp 1;
  webapp2 = webapp 2;
  webapp3 = webapp 3;
  webapp4 = webapp 4;
  webapp5 = webapp 5;
  webapp6 = webapp 6;

  nginxReverseProxy = rec {
    port = proxyPort;
    pkg = constructors.nginxReverseProxy { inherit port; webapps = [ webapp1 webapp2 webapp3 webapp4 ]; };
  };

  nginxReverseProxy2 = rec {
    port = proxyPort + 1;
    pkg = constructors.nginxReverseProxy { inherit port; webapps = [ webapp5 webapp6 ]; instanceSuffix = "2"; };
  };
}
