# Constructors: functions that describe a program once, for as many instances as a model wants. What two instances must
# not share (port, PID file, directories, account) follows from the parameters.
{ system
, stateDir
, runtimeDir
, logDir
, cacheDir
, tmpDir
, forceDisableUserChange
, processManager
, callingUser
, callingGroup
, ids ? { }
, nginx ? "/usr/sbin/nginx"
}:

let
  inherit (import <pytest-nixproc> {
    inherit system stateDir runtimeDir logDir tmpDir forceDisableUserChange processManager ids;
  }) createManagedProcess;

  inherit (builtins) concatStringsSep replaceStrings;

  # One word of nginx's configuration.
  quoted = text: "\"${replaceStrings [ "\\" "\"" ] [ "\\\\" "\\\"" ] text}\"";
in
{
  webapp = { port, instanceSuffix ? "", instanceName ? "webapp${instanceSuffix}" }:
    createManagedProcess {
      inherit instanceName;
      description = "Simple web application";
      # It can run in the foreground and as a daemon: the process manager chooses.
      process = "${import ./webapp { inherit system; }}/bin/webapp";
      daemonArgs = [ "-D" ];
      environment = {
        PORT = port;
        PID_FILE = "${tmpDir}/${instanceName}.pid";
      };
      user = instanceName;
      credentials = {
        groups.${instanceName} = { };
        users.${instanceName} = { group = instanceName; description = "Webapp"; };
      };
      overrides.sysvinit.runlevels = [ 3 4 5 ];
    };

  nginxReverseProxy = { port, webapps, instanceSuffix ? "", instanceName ? "nginx-reverse-proxy${instanceSuffix}" }:
    let
      home = "${stateDir}/${instanceName}";
      temporary = [ "client_body" "proxy" "fastcgi" "uwsgi" "scgi" ];
      # Only root can choose whom the workers run as, and gets itself where users are not changed.
      workers = if forceDisableUserChange then "${callingUser} ${callingGroup}" else "${instanceName} ${instanceName}";
      listen = "listen 127.0.0.1:${toString port}";
      configuration = concatStringsSep "\n" (
        (if callingUser == "root" then [ "user ${workers};" ] else [ ])
        ++ [
          "worker_processes 1;"
          "pid ${quoted "${runtimeDir}/${instanceName}.pid"};"
          "error_log ${quoted "${home}/logs/error.log"};"
          "error_log stderr;"
          "events { worker_connections 256; }"
          "http {"
          "access_log ${quoted "${home}/logs/access.log"};"
        ]
        ++ map (kind: "${kind}_temp_path ${quoted "${cacheDir}/${instanceName}/${kind}"};") temporary
        ++ [
          "server_names_hash_bucket_size 128;"
          "default_type text/plain;"
          "server { ${listen} default_server; return 404 'No web application has this name.\n'; }"
        ]
        ++ map
          (webapp: "server { ${listen}; server_name ${quoted webapp.dnsName}; location / {"
            + " proxy_pass http://127.0.0.1:${toString webapp.port}; proxy_set_header Host $host; } }")
          webapps
        ++ [ "}" ]
      );
    in
    createManagedProcess {
      inherit instanceName;
      description = "Reverse proxy with a virtual host for each web application";
      process = nginx;
      # -e: else it would open the log that it was built with, before it reads its configuration.
      args = [ "-p" home "-e" "${home}/logs/error.log" "-c" "${home}/nginx.conf" ];
      foregroundProcessExtraArgs = [ "-g" "daemon off;" ];
      directories = [ "${home}/logs" "${cacheDir}/${instanceName}" ];
      # The configuration names the state directories. Written here, and not into a derivation, it leaves the evaluation
      # the same for every deployment.
      files = [ { path = "${home}/nginx.conf"; text = "${configuration}\n"; } ];
      dependencies = map (webapp: webapp.pkg) webapps;
      credentials = {
        groups.${instanceName} = { };
        users.${instanceName} = { group = instanceName; description = "Reverse proxy"; };
      };
      overrides.sysvinit.runlevels = [ 3 4 5 ];
    };
}
