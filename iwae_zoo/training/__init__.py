"""A training run: its configuration, the work directory it leaves, learning rates, and the devices it runs on."""

from iwae_zoo.training import schedules, strategies
from iwae_zoo.training.config import Config
from iwae_zoo.training.run import Diverged, Run
from iwae_zoo.training.workdir import data_settings, read_config, write_json

__all__ = ["Config", "Diverged", "Run", "data_settings", "read_config", "schedules", "strategies", "write_json"]
