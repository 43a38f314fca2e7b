{ distribution, invDistribution, system, pkgs }:

let
  component = name: directory: builtins.path { inherit name; path = ./. + directory; };
  services = {
    "app" = {
      "port" = 5000;
      "name" = "app";
      "pkg" = component "webapp1" "/../../components/webapp1";
      "type" = "process";
    };
    "proxy" = {
      "port" = 8080;
      "name" = "proxy";
      "pkg" = _: component "nginx" "/../../components/nginx";
      "type" = "process";
      "dependsOn" = {
        "app" = services."app";
      };
    };
    "last" = {
      "name" = "last";
      "pkg" = _: component "last" "/../../components/last";
      "type" = "process";
      "dependsOn" = {
        "proxy" = services."proxy";
        "app" = services."app";
      };
    };
  };
in
services
