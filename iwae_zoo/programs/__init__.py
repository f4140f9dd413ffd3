"""The command line: flags to configuration to library. `iwae_zoo_console` starts these programs."""
