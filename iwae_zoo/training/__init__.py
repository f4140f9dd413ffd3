"""A training run: its configuration, the work directory it leaves, learning rates, and the devices it runs on."""

from iwae_zoo.training import schedules, strategies
from iwae_zoo.training.config import Config
from iwae_zoo.training.run import Diverged, Run
from iwae_zoo.training.workdir import read_config, write_json

__all__ = ["Config", "Diverged", "Run", "read_config", "schedules", "strategies", "write_json"]
