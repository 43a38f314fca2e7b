"""What a system is: frozen data, its validation, and the order that its dependencies ask for."""
