"""TF Serving's REST interface over a `Model`."""

import asyncio
import contextlib
import functools
import io
import logging as standard_logging
import re
import threading
import urllib.parse

from absl import logging
from aiohttp import web
from google.protobuf import json_format
from tensorflow_serving.apis import model_pb2

from iwae_zoo_serving import json_tensors
from iwae_zoo_serving.errors import ServingError, grpc, http_status, invalid, not_found

__all__ = ["answer", "serve"]

_VERSION = r"(?:/versions/([0-9]+)|/labels/([^/:]+))?"
_PREDICT = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", re.IGNORECASE)
_STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(?:/(metadata))?", re.IGNORECASE)
# Bytes of an answer above which it is sent in pieces.
_LARGE = 2**20


def answer(model, method, path, body):
    """Answers one request.

    Args:
      model: `Model`.
      method: str, of HTTP.
      path: str, still percent-encoded, with its query, which none of TF Serving's addresses has.
      body: bytes.

    Returns:
      HTTP status and JSON text.
    """
    try:
        return 200, _answer(model, method, path, body)
    except ServingError as error:
        status, text = http_status(error.code), str(error)
    except RecursionError:
        status, text = 400, "JSON Parse error: nested too deeply"
    except Exception as error:  # One request's surprise must not end the server.
        logging.exception("%s %s failed", method, path)
        status, text = 500, f"{type(error).__name__}: {error}"
    return status, json_tensors.dumps({"error": text})


def _answer(model, method, path, body):
    match = {"POST": _PREDICT, "GET": _STATUS}[method].fullmatch(path) if method in ("POST", "GET") else None
    # Of the verbs it knows the letters, and no capitals.
    if not match or (method == "POST" and not match[4].islower()):
        # TF Serving's own answers: it does not tell a wrong method from a wrong path, 405 is never sent.
        raise (invalid if path.lower().startswith("/v1/") else not_found)(f"Malformed request: {method} {path}")
    name, version, label, verb = match.groups()
    if not name:
        raise invalid("Missing model name in request.")
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(name))
    if label:
        spec.version_label = urllib.parse.unquote(label)
    if version:
        if len(version) > 19 or int(version) >= 2**63:
            raise invalid(f"Failed to convert version: {version} to numeric.")
        spec.version.value = int(version)
    if method == "POST":
        return _predict(model, spec, verb, body)
    if verb != "metadata":
        return json_tensors.dumps(_to_dict(model.status(spec)))
    served, signatures = model.metadata(spec)
    return json_tensors.dumps({"model_spec": _to_dict(served), "metadata": {"signature_def": _to_dict(signatures)}})


def _predict(model, spec, verb, body):
    if verb != "predict":
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"{verb}: this server answers predict only")
    servable = model.servable(spec)
    document = json_tensors.loads(body)
    signature_name = document.get("signature_name", "")
    if not isinstance(signature_name, str):
        raise invalid("'signature_name' key must be a string value.")
    inputs, rows = json_tensors.parse_inputs(document, servable.input_dtypes(signature_name))
    return json_tensors.format_predictions(servable.predict(signature_name, inputs), rows)


def _logger():
    """What aiohttp says of requests that are no HTTP, in one line each instead of a traceback."""

    def shorten(record):
        if record.exc_info:
            error = " ".join(str(record.exc_info[1]).split())
            record.msg, record.args, record.exc_info = f"{record.getMessage()}: {error}", (), None
        return True

    logger = standard_logging.Logger(__name__)
    logger.parent = standard_logging.getLogger()
    logger.addFilter(shorten)
    return logger


def _to_dict(message):
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


@contextlib.contextmanager
def serve(model, host, port, pool, max_body_bytes):
    """As `grpc_service.serve`, over HTTP; a request that is too large is answered with status 413."""

    def gone(request):
        return request.transport is None or request.transport.is_closing()

    def hung_up(request):
        logging.warning("%s %s: the client hung up", request.method, request.path)

    async def handle(request):
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            status, text = 413, json_tensors.dumps({"error": error.text})
        except web.RequestPayloadError as error:  # Not compressed as it says, for one; aiohttp logs it.
            status, text = 400, json_tensors.dumps({"error": f"The body cannot be read: {error}"})
        except ConnectionError:
            hung_up(request)
            return web.Response(status=400)
        else:
            call = functools.partial(answer, model, request.method, request.raw_path, body)
            if request.method == "GET":  # Nothing is computed, and health checks do not wait for what is.
                status, text = call()
            else:
                status, text = await loop.run_in_executor(pool, lambda: (400, "") if gone(request) else call())
        body = text.encode()
        # As a file it is sent in pieces, and the next one tells that nobody has read the last.
        large = io.BytesIO(body) if len(body) > _LARGE else body
        response = web.Response(status=status, body=large, content_type="application/json")
        try:
            await response.prepare(request)
            await response.write_eof()
        except ConnectionError:
            hung_up(request)
        return response

    async def close():
        await runner.cleanup()
        # A connection on which a too large body was still to come waits for it yet.
        waiting = asyncio.all_tasks() - {asyncio.current_task()}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    def run(coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    application = web.Application(client_max_size=max_body_bytes)
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=5, logger=_logger())
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="rest")
    thread.start()
    try:
        run(runner.setup())
        run(web.TCPSite(runner, host, port).start())
        yield runner.addresses[0][1]
    finally:
        run(close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
