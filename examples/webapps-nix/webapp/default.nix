# Builds the web application from its source, with the compiler of this machine; so it wants builds without a sandbox.
# With nixpkgs, it would be stdenv.mkDerivation.
{ system ? builtins.currentSystem
, compiler ? "/usr/bin/cc"
}:

derivation {
  name = "webapp";
  inherit system;
  builder = "/bin/sh";
  args = [ "-ec" ''mkdir -p "$out/bin"; "$compiler" -O2 -Wall -Werror -pthread -o "$out/bin/webapp" "$source"'' ];
  PATH = "/usr/bin:/bin";
  source = ./webapp.c;
  inherit compiler;
}
