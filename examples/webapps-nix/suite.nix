# A test definition, as the test driver of nix-processmgmt takes it: pytest runs it without a virtual machine.
{ testService, processManagers, profiles }:

testService {
  name = "webapps";
  exprFile = ./processes-assigned.nix;

  readiness = { instance, ... }: ''
    machine.wait_for_open_port(${toString instance.port})
  '';

  tests = { instanceName, instance, ... }:
    if instanceName == "gateway" then
      builtins.concatStringsSep "" (map
        (webapp: ''
          with subtest("${webapp.dnsName}"):
              machine.succeed(
                  "curl --fail -s -H 'Host: ${webapp.dnsName}' http://localhost:${toString instance.port} | grep 'port ${toString webapp.port}'"
              )
        '')
        instance.webapps)
    else "";

  postTests = { stateDir, ... }: ''
    machine.succeed("test -s ${stateDir}/gateway/logs/access.log")
  '';

  inherit processManagers profiles;
}
