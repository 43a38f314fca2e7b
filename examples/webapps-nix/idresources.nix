# The pools that ports and accounts get their numbers from.
rec {
  webappPorts = { min = 5000; max = 5999; };
  proxyPorts = { min = 8080; max = 8999; };
  uids = { min = 2000; max = 2999; };
  gids = uids;
}
