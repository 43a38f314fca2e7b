# Reads a file of test definitions: what upstream's test driver takes, one or a set of them.
#
# They are left as they are, with the functions that make scripts, which are called with what the driver calls them with.
{ model, suite, arguments }:

let
  inherit (builtins) attrNames filter functionArgs intersectAttrs isAttrs isFunction mapAttrs match removeAttrs scopedImport
    toString unsafeGetAttrPos;

  # The driver's parameters: the call fails, as it does there, for one that is missing or unknown.
  testService =
    { name, exprFile, processManagers, profiles, extraParams ? { }, nixosConfig ? null, systemPackages ? [ ]
    , initialTests ? null, readiness ? null, tests ? null, postTests ? null
    }@given: { nixprocType = "test"; inherit given; };

  # A file that gathers definitions may import the driver by itself: it gets this one.
  isDriver = path: match ".*/test-driver/(universal|agnostic)[.]nix" (toString path) != null;
  importing = path: if isDriver path then _: testService else import path;

  value = scopedImport { import = importing; } model;
  formals = if isFunction value then functionArgs value else { };
  offered = arguments // { inherit testService; inherit (suite) profiles; processManagers = suite.managers; };
  missing = filter (name: !formals.${name} && !(offered ? ${name})) (attrNames formals);
  result = if isFunction value then value (intersectAttrs formals offered) else value;

  isTest = set: isAttrs set && (set.nixprocType or "") == "test";
  strange = if isAttrs result && !isTest result then filter (name: !(isTest result.${name})) (attrNames result) else [ ];
  definitions = if isTest result then { "" = result.given; } else mapAttrs (_: test: test.given) result;


  # How large a virtual machine is does not matter where there is none.
  sizes = [ "memorySize" "diskSize" "cores" ];
  isEmpty = config: config == null || (isAttrs config && removeAttrs config [ "virtualisation" ] == { } && (
    isAttrs (config.virtualisation or { }) && removeAttrs (config.virtualisation or { }) sizes == { }
  ));
in
(
  if missing != [ ] then { problem = { problem = "missing arguments"; names = missing; }; }
  else if !isAttrs result || strange != [ ] then { problem = { problem = "no test definitions"; names = strange; }; }
  else { }
) // {
  inherit definitions;
  accepts = attrNames formals;

  list = mapAttrs
    (_: given: {
      exprFile = toString given.exprFile;
      inherit (given) processManagers profiles;
      needsMachine = !isEmpty (given.nixosConfig or null);
    })
    definitions;

  # The texts of all scripts, in the order in which they run.
  scripts = { definition, processes, offered }:
    let
      unprivileged = if offered.forceDisableUserChange then { inherit (offered) callingUser callingGroup; } else { };
      params = { inherit (offered) stateDir runtimeDir forceDisableUserChange; } // unprivileged;
      instanceNames = attrNames processes;
      script = phase: instance: more: {
        inherit phase instance;
        text = definition.${phase} (params // more);
        place = unsafeGetAttrPos phase definition;
      };
      whole = phase: script phase "" { inherit processes; };
      each = phase: more: map (instanceName: script phase instanceName ({ inherit instanceName; instance = processes.${instanceName}; } // more)) instanceNames;
      ifGiven = phase: list: if definition.${phase} or null == null then [ ] else list;
    in
    {
      scripts =
        ifGiven "initialTests" [ (whole "initialTests") ]
        ++ ifGiven "readiness" (each "readiness" { })
        ++ ifGiven "tests" (each "tests" { inherit (offered) processManager; })
        ++ ifGiven "postTests" [ (whole "postTests") ];
      packages = map (package: "${package}") (definition.systemPackages or [ ]);
    };
}
