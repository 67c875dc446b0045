"""What is served of a bundle, to whom, and nothing beside it."""

import datetime
import http.client
import json
import socket
import ssl
import threading
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastseg_runtime.arrays.command import UsageError
from fastseg_runtime.bundle.reader import BundleError, open_bundle
from fastseg_web import library
from fastseg_web.server import Content, PageServer, choose_artifact, contents, is_loopback

from tests.doubles.tiny_bundle import CLASSES, HEIGHT, WIDTH, argmax_onnx, empty_plan, full_plan
from tests.fastseg_web.conftest import FAKE, Serve


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return full_plan().write(tmp_path / "tiny.fastseg")


@pytest.fixture
def server(bundle: Path, serve: Serve) -> PageServer:
    return serve(bundle)


def ask(
    server: PageServer, path: str, host: str | None = None, method: str = "GET"
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{server.port}")
    connection.endheaders()
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content, dict(answer.headers)


def test_the_page_the_network_and_the_engine_are_served_as_what_they_are(
    server: PageServer,
) -> None:
    engine = f"/{library.NAME}"
    kinds = {
        "/": "text/html; charset=utf-8",
        "/contract.json": "application/json",
        "/model.onnx": "application/octet-stream",
        "/selftest/0": "application/octet-stream",
        f"{engine}/ort.wasm.min.mjs": "text/javascript",
        f"{engine}/ort-wasm-simd-threaded.mjs": "text/javascript",
        f"{engine}/ort-wasm-simd-threaded.wasm": "application/wasm",
    }
    for path, kind in kinds.items():
        status, content, headers = ask(server, path)
        assert (status, headers["Content-Type"]) == (200, kind)
        assert int(headers["Content-Length"]) == len(content) > 0
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert ask(server, path, method="HEAD")[:2] == (200, b"")
    assert ask(server, "/model.onnx")[1] == argmax_onnx()
    assert ask(server, "/model.onnx?x=1")[0] == 200


def test_the_contract_is_that_of_programs_and_has_the_engine_and_the_scenes(
    server: PageServer,
) -> None:
    table = json.loads(ask(server, "/contract.json")[1])
    assert (table["input"]["width"], table["output"]["height"]) == (WIDTH, HEIGHT)
    assert [entry["name"] for entry in table["classes"]] == [entry.name for entry in CLASSES]
    assert ask(server, table["engine"])[1] == FAKE[library.ENTRY]
    assert table["selftest"] == [{"width": WIDTH, "height": HEIGHT, "required": 0.99}]
    scene = np.frombuffer(ask(server, "/selftest/0")[1], np.uint8)
    rgba = scene[: 4 * WIDTH * HEIGHT].reshape(HEIGHT, WIDTH, 4)
    assert (rgba[..., 3] == 255).all()
    ids = scene[4 * WIDTH * HEIGHT :].reshape(HEIGHT, WIDTH)
    assert np.array_equal(ids, rgba[..., :3].argmax(axis=2))


@pytest.mark.parametrize(
    "path",
    [
        "/../pyproject.toml",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/etc/passwd",
        "/page.html",
        "/manifest.json",
        "/artifacts/cpu-fp32/model.onnx",
        "/selftest/1",
        "/selftest/0.npz",
        "/selftest/",
        f"/{library.NAME}/",
        f"/{library.NAME}/../../../../etc/passwd",
        f"/{library.NAME}/ort.wasm.min.mjs/..",
        "/model.onnx/",
        "/MODEL.ONNX",
        "http://127.0.0.1/etc/passwd",
        "*",
        "/" + "a" * 60_000,
    ],
)
def test_nothing_else_is_there(server: PageServer, path: str) -> None:
    assert ask(server, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_can_be_sent_there(server: PageServer, method: str) -> None:
    assert ask(server, "/", method=method)[0] == 501


def test_the_page_runs_its_own_script_alone_and_takes_nothing_from_outside(
    server: PageServer,
) -> None:
    seen = set()
    for _ in range(2):
        _, page, headers = ask(server, "/")
        policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
        assert policy["default-src"] == policy["base-uri"] == "'none'"
        assert policy["connect-src"] == policy["worker-src"] == "'self'"
        nonce = policy["style-src"].removeprefix("'nonce-").removesuffix("'")
        assert len(nonce) > 20 and page.count(nonce.encode()) == 2 and b"NONCE" not in page
        assert "unsafe-inline" not in str(policy) and "'unsafe-eval'" not in str(policy)
        seen.add(nonce)
    assert len(seen) == 2


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "x"])
def test_a_name_that_somebody_pointed_here_is_refused(server: PageServer, host: str) -> None:
    assert ask(server, "/model.onnx", host)[0] == 421


@pytest.mark.parametrize("host", ["localhost:8080", "192.168.1.9:8080", "[::1]:80"])
def test_a_forwarded_port_and_an_address_are_taken(server: PageServer, host: str) -> None:
    assert ask(server, "/", host)[0] == 200


def test_a_browser_that_takes_nothing_keeps_no_other_one_waiting(
    tmp_path: Path,
) -> None:
    served = {"/": Content("application/octet-stream", bytes(50_000_000))}
    stalled = []
    with PageServer(served, "127.0.0.1", 0, None) as server:
        threading.Thread(target=server.serve, daemon=True).start()
        for _ in range(5):
            one = socket.create_connection(("127.0.0.1", server.port))
            one.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            stalled.append(one)
        start_s = time.monotonic()
        assert len(ask(server, "/")[1]) == 50_000_000
        assert time.monotonic() - start_s < 5
        server.stop()
    for one in stalled:
        one.close()


def test_a_port_in_use_says_what_to_choose(server: PageServer) -> None:
    with pytest.raises(UsageError, match=rf"port {server.port}: .*in use; choose others .*--port"):
        PageServer({}, "127.0.0.1", server.port, None)


def test_an_address_of_another_machine_says_what_to_choose() -> None:
    with pytest.raises(UsageError, match="cannot listen on 192.0.2.1, port 0: .*--host"):
        PageServer({}, "192.0.2.1", 0, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "0", "0.0", "::", "0::0"])
def test_all_addresses_are_told_by_one_that_others_can_reach(host: str) -> None:
    with PageServer({}, host, 0, None) as server:
        shown = urlsplit(server.url).hostname
        assert shown not in {host, "0.0.0.0", "::"} and not server.is_secure


def test_an_empty_host_does_not_mean_all_addresses() -> None:
    with pytest.raises(UsageError, match="--host is empty; expected .*0.0.0.0"):
        PageServer({}, "", 0, None)


@pytest.mark.parametrize(
    ("host", "own"),
    [("127.0.0.1", True), ("127.0.0.9", True), ("::1", True), ("LocalHost", True),
     ("0.0.0.0", False), ("192.168.1.9", False), ("phone.example", False)],
)  # fmt: skip
def test_browsers_give_a_camera_to_this_machine(host: str, own: bool) -> None:
    assert is_loopback(host) is own


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 by its own authority, and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "fastseg test")])
    day, now = datetime.timedelta(days=1), datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


def context_of(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    cert, key = certificate(folder)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(cert, key)
    return theirs, ssl.create_default_context(cafile=str(cert))


def test_over_https_the_certificate_says_which_names_are_right(
    bundle: Path, serve: Serve, tmp_path: Path
) -> None:
    theirs, ours = context_of(tmp_path)
    server = serve(bundle, tls=theirs)
    assert server.url == f"https://127.0.0.1:{server.port}/" and server.is_secure
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ours, timeout=20)
    connection.request("GET", "/model.onnx", headers={"Host": "phone.example"})
    assert connection.getresponse().read() == argmax_onnx()
    connection.close()


def test_who_does_not_shake_hands_keeps_nobody_waiting(
    bundle: Path, serve: Serve, tmp_path: Path
) -> None:
    theirs, ours = context_of(tmp_path)
    server = serve(bundle, tls=theirs)
    silent = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(3)]
    silent[0].sendall(b"GET / HTTP/1.0\r\n\r\n")  # no TLS
    start_s = time.monotonic()
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=ours, timeout=20)
    connection.request("GET", "/")
    assert connection.getresponse().status == 200
    assert time.monotonic() - start_s < 5
    for one in (*silent, connection):
        one.close()


def plan_of(*targets: tuple[str, str, str, str]) -> Any:
    plan = empty_plan()
    for target, form, precision, backend in targets:
        requires = {"backend": backend}
        plan = plan.with_artifact(target, b"x", form, precision=precision, requires=requires)
    return plan


FLOAT, INT8 = (
    ("cpu-fp32", "onnx", "fp32", "onnxruntime"),
    ("cpu-int8", "onnx", "int8", "onnxruntime"),
)
OTHERS = (
    ("android-fp32", "tflite", "fp32", "litert"),
    ("jetson-fp16", "onnx", "fp16", "tensorrt"),
    ("intel-bf16", "onnx", "bf16", "openvino"),
)


@pytest.mark.parametrize(
    ("targets", "asked", "expected"),
    [
        ([*OTHERS, INT8, FLOAT], None, "cpu-fp32"),
        ([FLOAT, INT8], "cpu-int8", "cpu-int8"),
        ([INT8, *OTHERS], None, "cpu-int8"),
    ],
)
def test_the_float_artifact_for_onnx_runtime_is_taken_unless_another_is_named(
    tmp_path: Path, targets: Any, asked: str | None, expected: str
) -> None:
    path = plan_of(*targets).write(tmp_path / "street.fastseg")
    with open_bundle(path) as bundle:
        assert choose_artifact(bundle, asked).target == expected


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (None, r"there is android-fp32 \(litert\), jetson-fp16 \(tensorrt\), .*--target cpu-fp32"),
        ("jetson-fp16", r"jetson-fp16 is for tensorrt; add one: .*--target cpu-fp32"),
        ("cpu-fp32", r"has no target 'cpu-fp32'; it has android-fp32"),
    ],
)
def test_a_bundle_without_one_for_browsers_says_what_to_export(
    tmp_path: Path, asked: str | None, told: str
) -> None:
    path = plan_of(*OTHERS).write(tmp_path / "street.fastseg")
    with open_bundle(path) as bundle, pytest.raises(BundleError, match=told):
        choose_artifact(bundle, asked)


def test_a_bundle_without_any_artifact_says_so(tmp_path: Path) -> None:
    with (
        open_bundle(empty_plan().write(tmp_path / "a.fastseg")) as bundle,
        pytest.raises(BundleError, match="there is nothing; add one"),
    ):
        choose_artifact(bundle)


def test_a_network_that_names_other_files_is_not_served(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(argmax_onnx())
    tensor = model.graph.initializer.add(name="w", data_type=1, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    plan = empty_plan().with_artifact("cpu-fp32", model.SerializeToString())
    with (
        open_bundle(plan.write(tmp_path / "a.fastseg")) as bundle,
        pytest.raises(BundleError, match="passwd"),
    ):
        contents(bundle, choose_artifact(bundle), FAKE)
