"""What comes ready made: named architectures with the settings they are trained with."""

from iwae_zoo.presets.table import Preset, build, dtype_policy, get, names

__all__ = ["Preset", "build", "dtype_policy", "get", "names"]
