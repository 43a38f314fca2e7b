{ infrastructure }:

{
  "webapp" = [ infrastructure."localhost" ];
}
