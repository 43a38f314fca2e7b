"""Plans of deployments, made from models; nothing is started here."""
