"""The commands, one module each, named like the command; `jobd.cli.app` lists them."""
