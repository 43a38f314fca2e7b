{ distribution, invDistribution, system, pkgs }:

let
  component = name: directory: builtins.path { inherit name; path = ./. + directory; };
  services = {
    "dns" = {
      "name" = "dns";
      "pkg" = component "named" "/../../components/named";
      "type" = "process";
    };
  };
in
services
