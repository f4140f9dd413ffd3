"""TF Serving's configuration files say what they mean to say, as far as this can be told without TF Serving."""

import pathlib
import re
import subprocess

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

FOLDER = pathlib.Path(__file__).parents[2] / "export" / "tf_serving"

# BatchingParameters and MonitoringConfig are no part of tensorflow-serving-api. As in TF Serving's
# servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto:
PROTOS = """
    name: "configs.proto" package: "test" syntax: "proto3" dependency: "google/protobuf/wrappers.proto"
    message_type {
      name: "BatchingParameters"
      field { name: "max_batch_size" number: 1 label: LABEL_OPTIONAL type_name: ".google.protobuf.Int64Value" }
      field { name: "batch_timeout_micros" number: 2 label: LABEL_OPTIONAL type_name: ".google.protobuf.Int64Value" }
      field { name: "max_enqueued_batches" number: 3 label: LABEL_OPTIONAL type_name: ".google.protobuf.Int64Value" }
      field { name: "num_batch_threads" number: 4 label: LABEL_OPTIONAL type_name: ".google.protobuf.Int64Value" }
      field { name: "thread_pool_name" number: 5 label: LABEL_OPTIONAL type_name: ".google.protobuf.StringValue" }
      field { name: "allowed_batch_sizes" number: 6 label: LABEL_REPEATED type: TYPE_INT64 }
      field { name: "pad_variable_length_inputs" number: 7 label: LABEL_OPTIONAL type: TYPE_BOOL }
    }
    message_type {
      name: "PrometheusConfig"
      field { name: "enable" number: 1 label: LABEL_OPTIONAL type: TYPE_BOOL }
      field { name: "path" number: 2 label: LABEL_OPTIONAL type: TYPE_STRING }
    }
    message_type {
      name: "MonitoringConfig"
      field { name: "prometheus_config" number: 1 label: LABEL_OPTIONAL type_name: ".test.PrometheusConfig" }
    }
"""


def parse(name, message):
    return text_format.Parse((FOLDER / name).read_text(), message)


@pytest.fixture(scope="module")
def configs():
    from google.protobuf import wrappers_pb2

    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(PROTOS, descriptor_pb2.FileDescriptorProto()))
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"test.{name}"))()


@pytest.fixture(scope="module")
def service():
    yaml = pytest.importorskip("yaml", reason="PyYAML reads the compose file")
    (service,) = yaml.safe_load((FOLDER / "docker-compose.yml").read_text())["services"].values()
    return service


def test_models():
    (model,) = parse("models.config", model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("digits", "/models/digits", "tensorflow")


def test_batching(configs):
    batching = parse("batching.config", configs("BatchingParameters"))
    assert batching.max_batch_size.value >= 32
    assert batching.max_enqueued_batches.value < 10_000


def test_monitoring(configs):
    assert parse("monitoring.config", configs("MonitoringConfig")).prometheus_config.enable


def test_compose(service):
    assert re.fullmatch(r"tensorflow/serving:2\.21\.\d+", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    for flag in service["command"]:
        if "=/config/" in flag:
            assert (FOLDER / flag.split("=/config/")[1]).exists()


@pytest.mark.parametrize(("model", "code"), [("toy", 0), ("foo", 1)])
def test_health_check(server, model, code):
    # A bit of shell, tried on the local server; the compose file is read as text, to need no YAML.
    (script,) = re.findall(r"- >-\n((?: {10}.*\n)+)", (FOLDER / "docker-compose.yml").read_text())
    script = script.replace("8501", str(server.rest)).replace("digits", model)
    assert subprocess.run(["bash", "-c", script], timeout=20, check=False).returncode == code
