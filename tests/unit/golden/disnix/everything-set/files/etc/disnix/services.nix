{ distribution, invDistribution, system, pkgs }:

let
  component = name: directory: builtins.path { inherit name; path = ./. + directory; };
  services = {
    "full" = {
      "name" = "full";
      "pkg" = component "full" "/../../components/full";
      "type" = "process";
    };
  };
in
services
