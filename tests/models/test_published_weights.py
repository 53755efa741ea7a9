"""Downloads of published weights, and machines without a connection."""

import socket
import time
from threading import Thread

import pytest
import torch

from fulgurite.models import reachable_weights as room
from fulgurite.models.networks import build
from fulgurite.models.published_weights import published
from fulgurite.models.reachable_weights import reachable


@pytest.fixture
def no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def host(no_proxy):
    """A host that responds with the bytes in the list; silent while that is empty."""
    answers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                if answers:
                    connection.recv(4096)
                    connection.sendall(answers[0])
                    connection.close()
                else:
                    held.append(connection)

        held = []
        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/weights", answers
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def slow_look_up(*_, **__):
    time.sleep(20)
    raise OSError("no such host")


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "503 Busy"])
def test_a_host_with_any_response_is_reachable(status, host):
    url, answers = host
    answers.append(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    assert reachable(url)


def test_a_silent_host_and_a_slow_look_up_are_given_up_in_time(host, monkeypatch):
    url, _ = host
    began = time.perf_counter()
    assert not reachable(url, seconds=0.3)
    monkeypatch.setattr(socket, "getaddrinfo", slow_look_up)
    assert not reachable("http://nowhere.invalid/", seconds=0.3)
    assert time.perf_counter() - began < 15


def test_a_host_without_a_response_is_not_reachable(no_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert not reachable(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18", "timm/vgg11"])
def test_without_a_network_the_way_to_give_a_file_is_refused_at_once(name, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(room, "reachable", lambda url: bool(asked.append(url)))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    with pytest.raises(ValueError, match=r"does not answer: no network.*--weights FILE") as reported:
        build(name, classes=10, pretrained=True)
    assert len(asked) == 1
    assert "\n" not in str(reported.value)


@pytest.mark.parametrize("name", ["torchvision/resnet18", "timm/resnet18"])
def test_weights_that_are_on_this_machine_need_no_network(name, monkeypatch, tmp_path):
    state = build(name, classes=1000).state_dict()
    state = {part: value for part, value in state.items() if not part.startswith("normalise.")}
    monkeypatch.setattr(room, "reachable", lambda url: pytest.fail("asked for a host"))
    if name.startswith("timm"):
        monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "there")
        monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", lambda *_, **__: state)
    else:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        torch.save(state, tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    assert all(torch.equal(value, state[part]) for part, value in published(name).items())
