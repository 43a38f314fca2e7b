{ infrastructure }:

{
  "web" = [ infrastructure."localhost" ];
}
