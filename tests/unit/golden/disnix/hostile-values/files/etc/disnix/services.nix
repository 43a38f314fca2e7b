{ distribution, invDistribution, system, pkgs }:

let
  component = name: directory: builtins.path { inherit name; path = ./. + directory; };
  services = {
    "web" = {
      "name" = "web";
      "pkg" = component "web-1.local" "/../../components/web-1.local";
      "type" = "process";
    };
  };
in
services
