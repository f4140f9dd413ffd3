"""A training run: its configuration, the work directory it leaves, and the devices it runs on."""

from iwae_zoo.training import strategies
from iwae_zoo.training.run import Config, Diverged, Run, write_json

__all__ = ["Config", "Diverged", "Run", "strategies", "write_json"]
