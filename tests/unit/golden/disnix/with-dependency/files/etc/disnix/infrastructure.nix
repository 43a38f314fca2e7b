{
  "localhost" = {
    "properties" = {
      "hostname" = "localhost";
    };
    "containers" = {
      "process" = {
        "runtimeDir" = "/srv/state/run";
        "timeout" = 0;
      };
    };
  };
}
