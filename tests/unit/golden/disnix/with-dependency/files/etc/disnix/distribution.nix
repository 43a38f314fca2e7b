{ infrastructure }:

{
  "app" = [ infrastructure."localhost" ];
  "proxy" = [ infrastructure."localhost" ];
  "last" = [ infrastructure."localhost" ];
}
