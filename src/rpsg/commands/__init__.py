"""Groups of commands, one a module; `cli` puts them together."""
