# Evaluates a processes expression to one set that can be written as JSON. Problems of the expression's form are part of
# the result, so that they can be worded with the place where they are; only errors of Nix itself end the evaluation.
#
# `request` is JSON: `model` (a file, or a flake's directory), `isFlake`, `attribute` (a list of names), `offered`
# (arguments by name), `needsIds` (no ids are known yet), `idResources` and `ids` (files, or null), `suite`, null or what
# to do with a file of test definitions (`managers`, `profiles`, and the `name` of a definition whose model and scripts are
# wanted, or null for a list of all), `constructor`, null or what to do with one (`path`, a list of names that lead to it in
# what the file yields, and `sets` of values, by the names of the instances that are to be made of them, or null for its
# parameters), `apply`, null or a function override that is to be applied, and `keepsFunctions`, whether files see a toJSON
# that takes functions.
{ request }:

let
  inherit (builtins) attrNames concatLists elem filter foldl' fromJSON functionArgs genList getAttr getContext
    intersectAttrs isAttrs isFunction isList length listToAttrs mapAttrs removeAttrs toJSON
    unsafeDiscardStringContext unsafeGetAttrPos;

  asked = fromJSON request;
  suite = import ./suite.nix {
    inherit (asked) model suite;
    arguments = { pkgs = nixpkgs; } // asked.offered;
  };
  isListing = asked.suite != null && asked.suite.name == null;
  definition = suite.definitions.${asked.suite.name};
  importModel = if asked.keepsFunctions then builtins.scopedImport scope else import;
  root =
    if isListing then { }
    else if asked.suite != null then importModel definition.exprFile
    else if asked.isFlake then builtins.getFlake asked.model
    else importModel asked.model;

  # Upstream's framework writes configurations with toJSON, which has no way with functions. So that overrides can be
  # some, its files are given one that has: they see it, and an import that passes it on. nixpkgs is spared: imports like
  # that are not shared.
  scope = {
    import = path: if isOfNixpkgs (toString path) then import path else builtins.scopedImport scope path;
    builtins = builtins // { inherit (scope) import; toJSON = toTolerantJSON; };
  };
  isOfNixpkgs = path: builtins.any (root: builtins.substring 0 (builtins.stringLength root) path == root) nixpkgsRoots;
  nixpkgsRoots = map (entry: toString entry.path) (filter (entry: builtins.substring 0 7 entry.prefix == "nixpkgs") builtins.nixPath);
  toTolerantJSON = value: toJSON (plain (
    if asked.apply != null && isAttrs value && value ? overrides then { applied = applyTo value.overrides; } else value
  ));
  expression = foldl' (set: name: set.${name}) root asked.attribute;
  canBeCalled = value: isFunction value || (isAttrs value && value ? __functor);
  formalsOf = value: value.__functionArgs or (functionArgs (if isAttrs value then value.__functor value else value));
  isModelFunction = canBeCalled expression;
  formals = if isModelFunction then formalsOf expression else { };

  # An expression that has no pkgs of its own gets nixpkgs; a pin of its own must not be overruled.
  needsPkgs = !(formals.pkgs or true);
  nixpkgs = import <nixpkgs> { inherit (asked.offered) system; };
  extraParams = if asked.suite != null && !isListing then definition.extraParams or { } else { };
  offered = (if needsPkgs then { pkgs = nixpkgs; } else { }) // asked.offered // extraParams;
  missing = filter (name: !formals.${name} && !(offered ? ${name})) (attrNames formals);
  call = more: if isModelFunction then expression (intersectAttrs formals (offered // more)) else expression;

  # The pools that ids come from, and the ids that were assigned from them before.
  pools = if asked.idResources == null then { } else import asked.idResources;
  recorded = if asked.ids == null then { } else import asked.ids;
  setOr = value: if isAttrs value then value else { };
  recordedIds = setOr (recorded.ids or { });

  # Before ids are assigned, an expression gets those that would be if nobody else had any.
  firstLook = instances (call { ids = { }; processManager = null; });
  requests = mapAttrs (name: instance: if isAttrs instance then instance.requiresUniqueIdsFor or [ ] else [ ]) firstLook;
  provisional = pool:
    let
      old = setOr (recordedIds.${pool} or { });
      names = filter (name: elem pool requests.${name}) (attrNames requests);
      new = filter (name: !(old ? ${name})) names;
      first = pools.${pool}.min or 1;
      step = pools.${pool}.step or 1;
    in
    listToAttrs (genList (n: { name = builtins.elemAt new n; value = first + n * step; }) (length new))
    // intersectAttrs (listToAttrs (map (name: { inherit name; value = null; }) names)) old;
  requestedPools = listToAttrs (map (pool: { name = pool; value = null; }) (concatLists (map (name: requests.${name}) (attrNames requests))));
  ids =
    if !(formals ? ids) then { }
    else if asked.needsIds then { ids = if isAttrs firstLook then mapAttrs (pool: _: provisional pool) (setOr pools // requestedPools) else { }; }
    else { inherit (asked.offered) ids; };

  # A file of constructors yields no instances: those are made by one of them.
  inherit (asked) constructor;
  isParameterList = constructor != null && constructor.sets == null;
  found = library: foldl' (set: name: if isAttrs set then set.${name} or null else null) library constructor.path;
  made = function: mapAttrs (_: values: instanceOf (function (intersectAttrs (formalsOf function) offered // values))) constructor.sets;
  instanceOf = value: if isAttrs value && value ? pkg && !(value ? drvPath) then value else listToAttrs [ { name = "pkg"; inherit value; } ];
  instances = value: if constructor == null then value else if isParameterList then { } else made (found value);
  library = call (ids // { processManager = null; });
  known = if isAttrs library then filter (name: canBeCalled library.${name}) (attrNames library) else [ ];
  parameters =
    let formals = formalsOf (found library); in
    mapAttrs (name: hasDefault: { inherit hasDefault; position = unsafeGetAttrPos name formals; }) formals;

  # Upstream's framework makes agnostic configurations for a manager that is null; our library marks what it makes.
  agnostic = instances library;
  isOurs = set: builtins.any (name: isOurProcess (set.${name}.pkg or null)) (attrNames set);
  processes =
    if isModelFunction && formals ? processManager && isAttrs agnostic && isOurs agnostic then instances (call ids) else agnostic;

  isOurProcess = value: isAttrs value && (value.nixprocType or "") == "process";
  isInstance = value: isAttrs value && value ? pkg;
  isDerivation = value: isAttrs value && (value ? outPath || value ? __toString);

  # Values as JSON can have them: processes and functions are named, derivations are their paths.
  plain = value:
    if isFunction value then { "nixproc:function" = true; }
    else if isOurProcess value then { "nixproc:process" = value.name; }
    else if isInstance value then plain value.pkg
    else if isDerivation value then "${value}"
    else if isAttrs value then mapAttrs (_: plain) value
    else if isList value then map plain value
    else value;

  # Instances refer to instances: those are named by their processes, so that cycles are no problem.
  attribute = value:
    if isInstance value then { "nixproc:instance" = if isOurProcess value.pkg then value.pkg.name else null; }
    else if isOurProcess value || isFunction value || isDerivation value then plain value
    else if isAttrs value then mapAttrs (_: attribute) value
    else if isList value then map attribute value
    else value;

  # Errors without a position of their own, like those of throw, get that of the instance, attribute or parameter.
  at = place: value:
    if place == null then value
    else builtins.addErrorContext "at ${place.file}:${toString place.line}:${toString place.column}:" value;
  whole = value: builtins.deepSeq value value;
  wholeAt = set: convert: mapAttrs (name: value: at (unsafeGetAttrPos name set) (whole (convert value))) set;

  kind = value: if isAttrs value && value ? drvPath then "derivation" else builtins.typeOf value;

  placeOf = name: if constructor == null then unsafeGetAttrPos name processes else placeOfConstructor.position;
  placeOfConstructor = foldl' (at: name: { set = at.set.${name}; position = unsafeGetAttrPos name at.set; }) { set = library; } constructor.path;
  read = name: instance: at (placeOf name) (readPlaced name instance);
  readPlaced = name: instance: { position = placeOf name; } // (
    if !isAttrs instance then { problem = "no set"; kind = kind instance; }
    else if !(instance ? pkg) then { problem = "no pkg"; }
    else {
      attributes = wholeAt (removeAttrs instance [ "pkg" ]) attribute;
      attributePositions = mapAttrs (name: _: unsafeGetAttrPos name instance) instance;
    } // (
      if isOurProcess instance.pkg then
        if isAttrs instance.pkg.given then {
          parameters = wholeAt instance.pkg.given plain;
          positions = mapAttrs (parameter: _: unsafeGetAttrPos parameter (instance.pkg.written or instance.pkg.given)) instance.pkg.given;
        }
        else { problem = "no parameters"; kind = kind instance.pkg.given; }
      else if isAttrs instance.pkg && instance.pkg ? configJSON then
        { configuration = instance.pkg.configJSON; path = unsafeDiscardStringContext instance.pkg.outPath; }
      else { problem = "no process"; kind = kind instance.pkg; }
    )
  );

  applyTo = overrides: foldl' (set: name: set.${name}) overrides asked.apply.path asked.apply.parameters;
  override =
    let inherit (processes.${asked.apply.instance}) pkg; in
    if isOurProcess pkg then { applied = plain (applyTo pkg.given.overrides); }
    else { inherit (pkg) configJSON; };

  # Text keeps what it refers to: what has to be built is asked of the whole.
  document =
    if asked.apply != null then override
    else if isListing then suite.list
    else if isParameterList then parameters
    else if asked.suite != null then {
      instances = mapAttrs read processes;
      suite = suite.scripts { inherit definition processes offered; };
    }
    else mapAttrs read processes;
  text = toJSON document;
in
# What Nix says comes before this: by its first name, one sees where the result begins.
{ "! nixproc result" = true; } // (
  if asked.suite != null && suite ? problem then suite.problem
  else if missing != [ ] then { problem = "missing arguments"; names = missing; }
  else if constructor != null && !(canBeCalled (found library)) then { problem = "no constructor"; names = known; }
  else if isFunction processes then { problem = "returns a function"; }
  else if !isAttrs processes then { problem = "returns ${builtins.typeOf processes}"; }
  else {
    accepts = attrNames formals ++ (if asked.suite == null then [ ] else suite.accepts);
    inherit text pools recorded;
    inherit (builtins) storeDir;
    searched = map (entry: entry.path) builtins.nixPath;
    ids = ids.ids or { };
    context = getContext text;
  }
)
