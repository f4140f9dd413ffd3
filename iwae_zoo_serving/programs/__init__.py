"""The command line around a served model. `iwae_zoo_console` starts these programs, as those of `iwae_zoo.programs`."""
