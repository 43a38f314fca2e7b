{
  "ids" = {
    "gids" = {
      "gateway" = 2000;
      "webapp1" = 2001;
      "webapp2" = 2002;
    };
    "proxyPorts" = {
      "gateway" = 8080;
    };
    "uids" = {
      "gateway" = 2000;
      "webapp1" = 2001;
      "webapp2" = 2002;
    };
    "webappPorts" = {
      "webapp1" = 5000;
      "webapp2" = 5001;
    };
  };
  "lastAssignments" = {
    "gids" = 2002;
    "proxyPorts" = 8080;
    "uids" = 2002;
    "webappPorts" = 5001;
  };
}