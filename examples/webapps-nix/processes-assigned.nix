# Two web applications behind a reverse proxy, whose ports and accounts have numbers that are assigned: those in
# ids-assigned.nix, which `nixproc assign-ids` keeps up to date.
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
, ids ? (import ./ids-assigned.nix).ids
}:

let
  constructors = import ./constructors.nix {
    inherit system stateDir runtimeDir logDir cacheDir tmpDir forceDisableUserChange processManager;
    inherit callingUser callingGroup ids;
  };

  webapp = name: rec {
    port = ids.webappPorts.${name} or 0;
    dnsName = "${name}.local";
    pkg = constructors.webapp { inherit port; instanceName = name; };
    requiresUniqueIdsFor = [ "webappPorts" "uids" "gids" ];
  };
in
rec {
  webapp1 = webapp "webapp1";
  webapp2 = webapp "webapp2";

  gateway = rec {
    port = ids.proxyPorts.gateway or 0;
    webapps = [ webapp1 webapp2 ];
    pkg = constructors.nginxReverseProxy { inherit port webapps; instanceName = "gateway"; };
    requiresUniqueIdsFor = [ "proxyPorts" "uids" "gids" ];
  };
}
