{ createCredentials, runtimeDir, tmpDir }:
given:

let
  # A parameter that is null counts as not set.
  or' = name: default: let value = given.${name} or null; in if value == null then default else value;

  process = or' "process" null;
  args = or' "args" [ ];
  instanceName = or' "instanceName" null;
  name = or' "name" instanceName;
  user = or' "user" null;
  foregroundProcessExtraArgs = or' "foregroundProcessExtraArgs" [ ];
  daemonExtraArgs = or' "daemonExtraArgs" [ ];
  credentials = createCredentials (or' "credentials" { });
  pidFileDir = if user == null then runtimeDir else tmpDir;
in
# What is no set is refused with its place, once it is known which instance it is for.
if !(builtins.isAttrs given) then { nixprocType = "process"; name = null; inherit given; } else
{
  nixprocType = "process";
  # As the user has written it: that knows the places of all parameters.
  written = given;
  given = given // (if given ? credentials then { inherit credentials; } else { });

  inherit name instanceName process args user credentials foregroundProcessExtraArgs daemonExtraArgs;
  description = or' "description" name;
  foregroundProcess = or' "foregroundProcess" process;
  foregroundProcessArgs = or' "foregroundProcessArgs" (args ++ foregroundProcessExtraArgs);
  daemon = or' "daemon" process;
  daemonArgs = or' "daemonArgs" (args ++ daemonExtraArgs);
  pidFile = or' "pidFile" "${pidFileDir}/${if instanceName == null then name else instanceName}.pid";
  initialize = or' "initialize" "";
  path = or' "path" [ ];
  environment = or' "environment" { };
  directories = or' "directories" { };
  files = or' "files" { };
  directory = or' "directory" null;
  stopSignal = or' "stopSignal" null;
  reloadSignal = or' "reloadSignal" null;
  limits = or' "limits" { };
  umask = or' "umask" null;
  nice = or' "nice" null;
  dependencies = or' "dependencies" [ ];
  overrides = or' "overrides" { };
  postInstall = or' "postInstall" "";
}
