"""The local server: one model, its versions, and both interfaces."""

import concurrent.futures
import contextlib
import typing

from iwae_zoo_serving import grpc_service, models, rest

__all__ = ["Ports", "serve"]


class Ports(typing.NamedTuple):
    """Where a server listens."""

    grpc: int
    rest: int


@contextlib.contextmanager
def serve(
    model_base_path,
    model_name,
    *,
    host="127.0.0.1",
    port=8500,
    rest_api_port=8501,
    max_body_mb=64,
    poll_seconds=1.0,
):
    """Serves a folder of versions over gRPC and REST while the context lasts.

    Args:
      model_base_path: folder with one folder per version, named by an integer.
      model_name: str, in the addresses of requests.
      host: address to listen on. Nothing is authenticated: all but the loopback are open to their network.
      port: int, of gRPC; 0 for a free one.
      rest_api_port: int, of REST; 0 for a free one.
      max_body_mb: size of the largest request, in 2^20 bytes.
      poll_seconds: how often to look for a new version.

    Yields:
      `Ports`.

    Raises:
      ValueError: if `model_base_path` is no folder.
      OSError: if a port cannot be had.
    """
    limit = int(max_body_mb * 2**20)
    # As TF Serving does, listen only when there is something to answer with.
    with (
        _requests() as pool,
        models.Model(model_name, model_base_path, poll_seconds) as model,
        grpc_service.serve(model, host, port, pool, limit) as grpc_port,
        rest.serve(model, host, rest_api_port, pool, limit) as rest_port,
    ):
        yield Ports(grpc_port, rest_port)


@contextlib.contextmanager
def _requests():
    """Threads that compute; at the end those requests that are computed are waited for, and no others."""
    pool = concurrent.futures.ThreadPoolExecutor(thread_name_prefix="request")
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
