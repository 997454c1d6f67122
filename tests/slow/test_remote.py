"""Shards on real servers give the same batches as on the disk: pixels, ids and keys.

A web server's, with ranges and without, are in test_remote_faults.
"""

import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import replace

import pytest
from tests.support import servers
from tests.support.azure import azure
from tests.support.object_stores import SETTINGS, azure_settings, object_store
from tests.support.remote_shards import (
    BUCKET,
    NUM_SAMPLES,
    QUICK,
    assert_equal,
    batches,
    check,
    config,
    served_copy,
)

from prolip.cli import main
from prolip.data import BatchLoader, DataError, write_index


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_shards_in_an_object_store_give_the_batches_of_local_ones(scheme, folder, expected, tmp_path, monkeypatch):
    with object_store(scheme, folder, tmp_path) as endpoint:
        SETTINGS[scheme](monkeypatch, endpoint)
        for pattern in ("{000..005}.tar", "*.tar", "{000..005}.tar.gz"):
            check(f"{scheme}://{BUCKET}/data/{pattern}", expected, tmp_path)
        with pytest.raises(ValueError, match="it matches no object"):
            BatchLoader(config(f"{scheme}://{BUCKET}/data/none-*.tar"))
        with pytest.raises(DataError, match=r"006\.tar: the server answers 404"):
            batches(replace(config(f"{scheme}://{BUCKET}/data/006.tar"), num_samples=16))


def test_shards_on_the_hub_give_the_batches_of_local_ones(folder, expected, tmp_path, monkeypatch):
    files = tmp_path / "hub" / "datasets" / "owner" / "name" / "resolve" / "v1"
    files.parent.mkdir(parents=True)
    files.symlink_to(folder)
    tokens = []
    with servers.nginx(tmp_path / "hub", tmp_path) as files_url, servers.redirecting(files_url, tokens) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub)
        monkeypatch.setenv("HF_TOKEN", "secret")
        check("hf://datasets/owner/name@v1/{000..005}.tar", expected, tmp_path)
    assert set(tokens) == {"Bearer secret"}


def test_an_index_at_an_address_is_used(folder, expected, tmp_path):
    served = served_copy(folder, tmp_path / "served")
    with servers.nginx(served, tmp_path) as url:
        shards = f"{url}/{{000..005}}.tar"
        write_index([shards], served / "all.index", 2, QUICK)
        assert_equal(batches(config(shards, f"{url}/all.index")), expected)
        with pytest.raises(DataError, match=r"none\.index: the server answers 404"):
            BatchLoader(config(shards, f"{url}/none.index"))
        with pytest.raises(DataError, match=r"000\.tar: not an index"):
            BatchLoader(config(shards, f"{url}/000.tar"))


def test_the_index_command_writes_and_checks_remote_shards(folder, tmp_path, monkeypatch, capsys):
    index = str(tmp_path / "all.index")
    with servers.nginx(folder, tmp_path) as url, azure(folder, BUCKET) as endpoint:
        azure_settings(monkeypatch, endpoint)
        both = [f"{url}/{{000..002}}.tar", f"az://{BUCKET}/data/00[345].tar"]
        assert main(["data", "index", "--shards", *both, "--out", index]) == 0
        assert f"{NUM_SAMPLES} samples in 6 shards" in capsys.readouterr().out
        assert main(["data", "index", "--shards", *both, "--out", index, "--check", "--store.connections", "2"]) == 0
        assert "matches its shards" in capsys.readouterr().out
        assert main(["data", "index", "--shards", f"{url}/*.tar", "--out", index]) == 2
        assert "only object stores" in capsys.readouterr().err
        assert main(["data", "index", "--shards", f"{url}/9.tar", "--out", index]) == 2
        assert "/9.tar: the server answers 404 (tried once)" in capsys.readouterr().err


def test_shards_from_a_command_are_read_only_if_allowed(folder, expected, tmp_path):
    shards = f"pipe:cat {folder}/{{000..005}}.tar | cat"
    check(shards, expected, tmp_path, replace(QUICK, allow_pipe=True))
    with pytest.raises(ValueError, match=r"store\.allow_pipe"):
        BatchLoader(config(shards))


@contextmanager
def https(folder, work, monkeypatch, more=""):
    """nginx with a certificate that is believed as long as the block lasts."""
    if shutil.which("openssl") is None:
        servers.missing("openssl", "sudo apt-get install openssl")
    key, certificate = work / "key.pem", work / "certificate.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=test -keyout {key} -out {certificate}"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    lines = f"ssl_certificate {certificate}; ssl_certificate_key {key}; {more}"
    with monkeypatch.context() as patch, servers.nginx(folder, work, lines, encrypted=True) as url:
        patch.setenv("SSL_CERT_FILE", str(certificate))
        yield url


def test_https_is_verified_and_not_downgraded(folder, expected, tmp_path, monkeypatch):
    away = "location /away/ { return 302 http://127.0.0.1:1/; }"
    with https(folder, tmp_path, monkeypatch, away) as url:
        check(f"{url}/{{000..005}}.tar", expected, tmp_path)
        with pytest.raises(DataError, match=r"redirects from https to an address without encryption \(tried once\)"):
            batches(replace(config(f"{url}/away/000.tar"), num_samples=16))
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with https(folder, tmp_path, monkeypatch) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
        with pytest.raises(DataError, match=r"certificate.*\(tried once\)"):
            batches(replace(config(f"{url}/000.tar"), num_samples=16))
