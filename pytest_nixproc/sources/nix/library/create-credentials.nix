{ ids }:
{ groups ? { }, users ? { } }:

let
  numbered = property: numbers: name: account:
    (if numbers ? ${name} then { ${property} = numbers.${name}; } else { }) // account;
in
{
  groups = builtins.mapAttrs (numbered "gid" (ids.gids or { })) groups;
  users = builtins.mapAttrs (numbered "uid" (ids.uids or { })) users;
}
