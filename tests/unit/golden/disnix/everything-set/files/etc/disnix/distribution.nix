{ infrastructure }:

{
  "full" = [ infrastructure."localhost" ];
}
