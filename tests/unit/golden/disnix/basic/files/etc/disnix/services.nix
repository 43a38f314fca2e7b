{ distribution, invDistribution, system, pkgs }:

let
  component = name: directory: builtins.path { inherit name; path = ./. + directory; };
  services = {
    "webapp" = {
      "port" = 5000;
      "name" = "webapp";
      "pkg" = component "webapp" "/../../components/webapp";
      "type" = "process";
    };
  };
in
services
