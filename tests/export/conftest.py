"""One server for the tests that do not change its model."""

import pytest
from serving_toy import Rest, save

from iwae_zoo_serving.server import serve


@pytest.fixture(scope="session")
def toy_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "toy"
    path.mkdir()
    save(path, 1)
    return path


@pytest.fixture(scope="session")
def server(toy_path):
    with serve(toy_path, "toy", port=0, rest_api_port=0, max_body_mb=1) as ports:
        yield ports


@pytest.fixture(scope="session")
def rest(server):
    return Rest(server.rest)
