{ infrastructure }:

{
  "dns" = [ infrastructure."localhost" ];
}
