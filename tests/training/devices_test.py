"""What is asked of TensorFlow for each way to write devices; there is no card here, so one is pretended."""

import ctypes
from types import SimpleNamespace

import pytest
import tensorflow as tf

from iwae_zoo import strategies
from iwae_zoo.model import memory
from iwae_zoo.training import devices


@pytest.fixture
def machine(monkeypatch):
    """A machine with two cards of 1000 and 2000 megabytes, and what it was asked for."""
    asked = SimpleNamespace(visible=None, divided={})
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind: [f"{kind} {i}" for i in range(1 + (kind == "GPU"))]
    )
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda cards, kind: setattr(asked, "visible", cards))
    monkeypatch.setattr(
        tf.config,
        "set_logical_device_configuration",
        lambda device, parts: asked.divided.update({device: [part.memory_limit for part in parts]}),
    )
    monkeypatch.setattr(memory, "card_megabytes", lambda index: 1000.0 * (index + 1))
    return asked


@pytest.mark.parametrize(
    ("written", "visible", "divided", "used"),
    [
        (None, None, {}, ("GPU", 2, False)),
        ("gpu", ["GPU 0"], {}, ("GPU", 1, False)),
        ("gpu:2", ["GPU 0", "GPU 1"], {}, ("GPU", 2, False)),
        ("gpu:1x1", ["GPU 0"], {}, ("GPU", 1, False)),
        ("GPU:1x2", ["GPU 0"], {"GPU 0": [450, 450]}, ("GPU", 2, True)),
        ("gpu:2x3", ["GPU 0", "GPU 1"], {"GPU 0": [300] * 3, "GPU 1": [600] * 3}, ("GPU", 6, True)),
        ("cpu", [], {"CPU 0": [None]}, ("CPU", 1, False)),
        ("cpu:2", [], {"CPU 0": [None] * 2}, ("CPU", 2, True)),
        ("cpu:1x2", [], {"CPU 0": [None] * 2}, ("CPU", 2, True)),
        ("cpu:2x2", [], {"CPU 0": [None] * 4}, ("CPU", 4, True)),
    ],
)
def test_what_is_asked_for(written, visible, divided, used, machine):
    assert devices.use(written) == used
    assert (machine.visible, machine.divided) == (visible, divided)


def test_names():
    assert devices.Devices("GPU", 2, shared=True).names == ["GPU:0", "GPU:1"]


@pytest.mark.parametrize(("written", "without_nccl"), [("gpu:2", False), ("gpu:1x2", True), ("cpu:1x2", True)])
def test_logical_devices_exchange_without_nccl(written, without_nccl, machine, monkeypatch):
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda names, cross_device_ops: (names, cross_device_ops))
    names, exchange = strategies.get("auto", written)
    assert names == [f"{written[:3].upper()}:{i}" for i in range(2)]
    assert isinstance(exchange, tf.distribute.ReductionToOneDevice) == without_nccl
    assert without_nccl or exchange is None  # TensorFlow's own choice.


@pytest.mark.parametrize("written", ["gpu:1x2", "cpu:2"])
def test_workers_have_no_logical_devices(written, machine, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}')
    with pytest.raises(ValueError, match=f"received devices='{written}' with the strategy multi_worker"):
        strategies.get("auto", written)


class Driver:
    """CUDA's, of cards with so many megabytes."""

    def __init__(self, megabytes):
        self.megabytes = megabytes

    def cuInit(self, flags):
        return flags

    def cuDeviceGet(self, device, index):
        device._obj.value = index
        return 0 if index < len(self.megabytes) else 101

    def cuDeviceTotalMem_v2(self, size, device):
        size._obj.value = self.megabytes[device.value] * 2**20
        return 0


def test_the_memory_of_a_card(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver([1000, 80000]))
    assert memory.card_megabytes(1) == 80000
    with pytest.raises(RuntimeError, match="does not say how much memory card 2 has: error 101"):
        memory.card_megabytes(2)


def test_a_machine_without_the_driver(monkeypatch):
    def missing(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match=r"how much memory a card has: libcuda\.so\.1: cannot open"):
        memory.card_megabytes(0)


def test_a_machine_that_runs_already(machine, monkeypatch):
    def late(*_):
        raise RuntimeError("Virtual devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config, "set_logical_device_configuration", late)
    with pytest.raises(RuntimeError, match="only before anything else of TensorFlow runs"):
        devices.use("gpu:1x2")
