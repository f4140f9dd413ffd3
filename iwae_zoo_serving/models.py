"""Loading the versions of a SavedModel, and moving to a new one while requests are answered."""

import pathlib
import re
import threading

import numpy as np
import tensorflow as tf
from absl import logging
from google.protobuf import message
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, prediction_log_pb2

from iwae_zoo_serving.errors import ServingError, grpc, invalid, not_found

__all__ = ["Model", "Servable"]

_NO_TRACE = "<stack traces unavailable>\n"


class Servable:
    """One loaded version of a model.

    Args:
      path: the version's folder.
      version: int.

    Raises:
      ServingError: if the folder holds no model, or a model that its own warm-up requests break.
      tf.errors.OpError, OSError, ValueError: of TensorFlow's loader.
    """

    def __init__(self, path, version):
        self.version = version
        path = pathlib.Path(path)
        self.identity = _identity(path)
        self.signature_defs = _read_signature_defs(path)
        # Kept, for a signature does not keep the variables that it reads alive.
        self._loaded = tf.saved_model.load(str(path))
        self._functions = dict(self._loaded.signatures)
        self._warm(path / "assets.extra" / "tf_serving_warmup_requests")

    def input_dtypes(self, signature_name):
        """The dtype of each input of a signature, by TensorFlow's name for it: `DT_FLOAT`."""
        inputs = self._signature(signature_name).inputs
        return {name: types_pb2.DataType.Name(info.dtype) for name, info in inputs.items()}

    def predict(self, signature_name, inputs, output_filter=()):
        """Runs a signature.

        Args:
          signature_name: str, or "" for `serving_default`.
          inputs: dict of name and array, exactly the signature's.
          output_filter: names of the outputs wanted; all of them if empty.

        Returns:
          dict of name and array.

        Raises:
          ServingError: if the inputs do not fit the signature, or the model fails on them.
        """
        self.check_names(signature_name, inputs)
        signature = self._signature(signature_name)
        if len(set(output_filter)) < len(output_filter) or not set(output_filter) <= set(signature.outputs):
            known = ", ".join(sorted(signature.outputs))
            raise invalid(f"output_filter {list(output_filter)}: expecting some of {{{known}}}, each once")
        tensors = {name: _to_tensor(name, inputs[name], info) for name, info in signature.inputs.items()}
        try:
            outputs = self._functions[signature_name or "serving_default"](**tensors)
            return {name: _to_array(outputs[name]) for name in output_filter or sorted(outputs)}
        except tf.errors.OpError as error:
            raise ServingError(error.error_code, error.message.split(_NO_TRACE)[-1]) from error

    def check_names(self, signature_name, names):
        """Raises ServingError if a signature has other inputs than these names."""
        inputs = set(self._signature(signature_name).inputs)
        if set(names) != inputs:
            extra = ", ".join(sorted(set(names) - inputs))
            missing = ", ".join(sorted(inputs - set(names)))
            known = ", ".join(sorted(inputs))
            raise invalid(f"Sent extra: {{{extra}}}. Missing but required: {{{missing}}}. Inputs are {{{known}}}")

    def _signature(self, name):
        name = name or "serving_default"
        if name not in self._functions:
            known = ", ".join(sorted(self._functions))
            message = f'Serving signature name: "{name}" not found in signature def. Signatures are {{{known}}}'
            raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, message)
        return self.signature_defs[name]

    def _warm(self, path):
        if path.exists():
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                log = prediction_log_pb2.PredictionLog.FromString(record)
                if not log.HasField("predict_log"):  # This server answers no other kind.
                    continue
                request = log.predict_log.request
                tensors = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
                self.predict(request.model_spec.signature_name, tensors)
            return
        for name, function in self._functions.items():
            try:
                function(**{key: _one_row(spec) for key, spec in function.structured_input_signature[1].items()})
            except (tf.errors.OpError, TypeError, ValueError) as error:
                # A model need not like zeros; nobody asked for this answer.
                logging.debug("warm-up of %s with zeros: %s", name, error)


class Model:
    """A named model, of which the largest version that loads is served.

    Args:
      name: str, in the addresses of requests.
      base_path: folder with one folder per version, named by an integer.
      poll_seconds: how often to look for a new version.

    Raises:
      ValueError: if `base_path` is no folder.
    """

    def __init__(self, name, base_path, poll_seconds=1.0):
        self.name = name
        self._base_path = pathlib.Path(base_path)
        if not self._base_path.is_dir():
            raise ValueError(f"model_base_path={str(base_path)!r} is no folder; it holds a model's versions, as in 1/")
        self._poll_seconds = poll_seconds
        self._served = None
        self._states = {}  # version: (state, error code, error message). Replaced whole, so that readers need no lock.
        self._faults = {}  # version: what its files looked like when they failed to load.
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def __enter__(self):
        """Loads the largest version now, and later ones as they appear."""
        self.poll()
        if self._served is None:
            logging.warning("No version of %s under %s can be served yet", self.name, self._base_path)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def poll(self):
        """Looks at the folder once, and moves to the largest version that loads.

        A version that failed is left alone until its files change. One that was deleted gives way to the next, and one
        that another model has taken the place of to that.
        """
        found = (path for path in self._base_path.iterdir() if re.fullmatch("[0-9]{1,19}", path.name) and path.is_dir())
        for version, path in sorted(((int(path.name), path) for path in found), reverse=True):
            if version >= 2**63:  # Of int64, as TF Serving has versions.
                continue
            served = self._served
            current = served.identity if served and served.version == version else None
            if current == _identity(path):
                return
            again = current is not None  # Another model, in a folder of the same number.
            stamp = _stamp(path)
            if self._faults.get(version) == stamp:
                if again:
                    return
                continue
            if not again:
                self._set(version, "LOADING")
            try:
                servable = Servable(path, version)
            except Exception as error:  # Whatever a broken file makes a loader raise, the old version stays.
                self._faults[version] = stamp
                code = getattr(error, "error_code", grpc.StatusCode.UNKNOWN.value[0])  # Of TensorFlow's.
                code = error.code.value[0] if isinstance(error, ServingError) else code
                self._set(version, "AVAILABLE" if again else "END", code, str(error))
                logging.error("Loading version %d of %s failed: %s", version, self.name, error)
                if again:  # As it was before.
                    return
                continue
            old, self._served = self._served, servable
            self._set(version, "AVAILABLE")
            logging.info("Serving version %d of %s", version, self.name)
            if old and not again:
                self._set(old.version, "END")
            return

    def servable(self, spec):
        """The version that a request's `ModelSpec` asks for; NOT_FOUND if there is no such model, version or label."""
        served = self._served
        if not spec.name:
            raise invalid("ModelSpec has no name specified.")
        if spec.name != self.name or served is None:
            raise not_found(f"Servable not found for request: Latest({spec.name})")
        self._check_label(spec)
        if spec.HasField("version") and spec.version.value != served.version:
            raise not_found(f"Servable not found for request: Specific({spec.name}, {spec.version.value})")
        return served

    def status(self, spec):
        """`GetModelStatusResponse`: the state of the version asked for, or of all versions ever tried."""
        states = self._states if spec.name == self.name else {}
        if not states:
            raise not_found(f"Could not find any versions of model {spec.name}")
        self._check_label(spec)
        if spec.HasField("version"):
            if spec.version.value not in states:
                raise not_found(f"Could not find version {spec.version.value} of model {spec.name}")
            states = {spec.version.value: states[spec.version.value]}
        response = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, code, text) in sorted(states.items(), reverse=True):
            state = get_model_status_pb2.ModelVersionStatus.State.Value(state)
            response.model_version_status.add(
                version=version, state=state, status={"error_code": code, "error_message": text}
            )
        return response

    def metadata(self, spec):
        """The served `ModelSpec`, and its signatures as a `SignatureDefMap`."""
        servable = self.servable(spec)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=servable.signature_defs)
        return self.served_spec(servable), signatures

    def served_spec(self, servable, signature_name=""):
        """The `ModelSpec` of an answer."""
        return model_pb2.ModelSpec(name=self.name, version={"value": servable.version}, signature_name=signature_name)

    def _check_label(self, spec):
        # Labels are given in TF Serving's model config, which this server does not have.
        if spec.HasField("version_label"):
            raise invalid(f"Unrecognized servable version label: {spec.version_label}")

    def _set(self, version, state, code=0, text=""):
        self._states = {**self._states, version: (state, code, text)}

    def _watch(self):
        said = ""
        while not self._stop.wait(self._poll_seconds):
            try:
                self.poll()
                said = ""
            except OSError as error:  # A folder may vanish while it is read; the next look will tell.
                if str(error) != said:
                    said = str(error)
                    logging.error("Looking for versions of %s failed: %s", self.name, error)


def _identity(path):
    """Tells a version's folder from another one that has come in its place."""
    folder = path.stat()
    model = path / "saved_model.pb"
    return folder.st_dev, folder.st_ino, model.stat().st_mtime_ns if model.exists() else None


def _stamp(path):
    """What the files of a version look like: something else once one of them has changed."""
    found = []
    for file in path.rglob("*"):
        try:
            status = file.stat()
        except OSError:  # It has just vanished, or is a link to nothing.
            found.append((str(file), 0, 0))
        else:
            found.append((str(file), status.st_mtime_ns, status.st_size))
    return sorted(found)


def _read_signature_defs(path):
    try:
        saved_model = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    except FileNotFoundError:
        raise ServingError(grpc.StatusCode.NOT_FOUND, f"no saved_model.pb in {path}") from None
    except message.DecodeError as error:
        raise ServingError(grpc.StatusCode.DATA_LOSS, f"{path / 'saved_model.pb'}: {error}") from None
    for meta_graph in saved_model.meta_graphs:
        if "serve" in meta_graph.meta_info_def.tags:
            return dict(meta_graph.signature_def)
    raise ServingError(grpc.StatusCode.NOT_FOUND, f"{path} has no graph with the tag 'serve'")


def _one_row(spec):
    shape = [] if spec.shape.rank is None else [1 if size is None else size for size in spec.shape]
    return tf.fill(shape, "") if spec.dtype == tf.string else tf.zeros(shape, spec.dtype)


def _to_tensor(name, array, info):
    dtype = tf.as_dtype(info.dtype)
    shape = tf.TensorShape(info.tensor_shape)
    if not shape.is_compatible_with(array.shape):
        wanted = [-1 if size is None else size for size in shape]
        raise invalid(f"input '{name}' has shape {list(array.shape)}, expecting {wanted}")
    if array.dtype != dtype.as_numpy_dtype:
        raise invalid(f"input '{name}' has dtype {array.dtype}, expecting {dtype.name}")
    return tf.constant(array, dtype)


def _to_array(tensor):
    return np.asarray(tensor.numpy(), dtype=object if tensor.dtype == tf.string else None)
